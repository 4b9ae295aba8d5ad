package gateway

import "net/netip"

// Type is one of the four heterogeneous or homogeneous communications of RFC
// 3089, section 2. It is an outcome to be told, never a branch to be taken.
type Type byte

// The types, by the families of the client's side and the far side.
const (
	A Type = 'A' // IPv4 to IPv4
	B Type = 'B' // IPv4 to IPv6
	C Type = 'C' // IPv6 to IPv4
	D Type = 'D' // IPv6 to IPv6
)

// Types are all types.
var Types = [...]Type{A, B, C, D}

// TypeOf returns the type of a session of client with far.
func TypeOf(client, far netip.Addr) Type {
	switch v4, far4 := client.Unmap().Is4(), far.Unmap().Is4(); {
	case v4 && far4:
		return A
	case v4:
		return B
	case far4:
		return C
	}
	return D
}

func (t Type) String() string { return string(rune(t)) }
