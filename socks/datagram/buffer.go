package datagram

import "sync"

// Max is the largest UDP payload that an IP packet holds, rounded up.
const Max = 64 << 10

// Buffer has room for any datagram.
type Buffer [Max]byte

var buffers = sync.Pool{New: func() any { return new(Buffer) }}

// Take lends a Buffer, which holds what it held before. Its user is to give it
// back.
func Take() *Buffer { return buffers.Get().(*Buffer) }

// Give gives b back.
func (b *Buffer) Give() { buffers.Put(b) }
