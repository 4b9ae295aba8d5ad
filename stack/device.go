package stack

import "golang.zx2c4.com/wireguard/tun"

// Device carries IP packets between the host and a Stack.
type Device = tun.Device
