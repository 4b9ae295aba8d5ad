package dnsfake

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	saveDelay = 100 * time.Millisecond // collects changes into one write
	syncDelay = 5 * time.Second        // and writes into one fsync
	failDelay = 5 * time.Second        // between tries on a disk that does not take them

	// renewal is how far the journal runs ahead of a promise that is renewed
	// all the time, in seconds, so that it need not be written each time.
	renewal = 5 * 60
	// maxLease bounds, in seconds, how long what a journal says is believed.
	// Without it a clock that was wrong then, or is now, would block a full pool.
	maxLease = 60 * 60
	// clockStep of the host's clock, in seconds, makes the times in the
	// journal worthless.
	clockStep = 60 * 60

	compactFrom = 1 << 20 // octets; a smaller journal is left as it is
	maxJournal  = 1 << 30 // octets; what is larger is no journal of ours
	lockTries   = 10
	chunk       = 1 << 16 // octets of records read from the table at a time
)

// journalMagic begins a journal. After it come the pools, the table's secret and
// a CRC; then records, the last for a name or an index counts.
const journalMagic = "sixgate names 1\n"

const (
	headerOctets = len(journalMagic) + 4 + 1 + 16 + 1 + 16 + 4
	recordOctets = 4 + 4 + 4 + 2 // CRC, index, lease, length; the name follows
	maxRecord    = recordOctets + 1<<16 - 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is that an index stands for a name until the lease ends, in Unix
// seconds.
type record struct {
	index, lease uint32
	name         string
}

func (r record) append(b []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, r.index)
	b = binary.BigEndian.AppendUint32(b, r.lease)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.name)))
	b = append(b, r.name...)
	binary.BigEndian.PutUint32(b[start:], crc32.Checksum(b[start+4:], castagnoli))
	return b
}

// parseRecords returns the records at the beginning of b, and what follows the
// last one that is whole.
func parseRecords(b []byte) (records []record, rest []byte) {
	for len(b) >= recordOctets {
		size := recordOctets + int(binary.BigEndian.Uint16(b[12:]))
		if len(b) < size || binary.BigEndian.Uint32(b) != crc32.Checksum(b[4:size], castagnoli) {
			break
		}
		records = append(records, record{
			index: binary.BigEndian.Uint32(b[4:]),
			lease: binary.BigEndian.Uint32(b[8:]),
			name:  string(b[recordOctets:size]),
		})
		b = b[size:]
	}
	return records, b
}

// journalHeader is the beginning of a journal.
type journalHeader struct {
	pool4, pool6 netip.Prefix
	secret       [16]byte
}

func (h journalHeader) append(b []byte) []byte {
	start := len(b)
	b = append(b, journalMagic...)
	b = append(append(b, h.pool4.Addr().AsSlice()...), byte(h.pool4.Bits()))
	b = append(append(b, h.pool6.Addr().AsSlice()...), byte(h.pool6.Bits()))
	b = append(b, h.secret[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

func parseJournalHeader(b []byte) (h journalHeader, ok bool) {
	if len(b) < headerOctets || string(b[:len(journalMagic)]) != journalMagic {
		return h, false
	}
	sum := b[headerOctets-4 : headerOctets]
	if binary.BigEndian.Uint32(sum) != crc32.Checksum(b[:headerOctets-4], castagnoli) {
		return h, false
	}
	b = b[len(journalMagic):]
	h.pool4 = netip.PrefixFrom(netip.AddrFrom4([4]byte(b)), int(b[4]))
	h.pool6 = netip.PrefixFrom(netip.AddrFrom16([16]byte(b[5:])), int(b[21]))
	h.secret = [16]byte(b[22:])
	return h, true
}

// Journal keeps what a Table has promised in a file, so that it outlives the
// process: it appends what changes, and writes the file anew when it has grown
// to twice its size.
type Journal struct {
	path    string
	table   *Table
	logger  *slog.Logger
	file    *os.File // locked
	size    int64    // octets of file, whole records
	compact int64    // size to write the file anew from
	zero    int64    // table's second 0, in Unix seconds
	failing bool     // the last write went wrong
}

// OpenJournal reads the file at path into t, which must be new, and makes the
// file and its directory if there are none. Then Run has to be called. A file
// with errors is repaired or set aside, and logger, which may be nil, told so.
// An error is that of a file that cannot be used: EAGAIN if another process
// does.
func OpenJournal(path string, t *Table, logger *slog.Logger) (*Journal, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("keeping names: %w", err)
	}
	file, err := openLocked(path)
	if err != nil {
		return nil, fmt.Errorf("keeping names: %w", err)
	}
	j := &Journal{path: path, table: t, logger: logger, file: file}
	if err := j.load(); err != nil {
		j.file.Close()
		return nil, fmt.Errorf("keeping names: %w", err)
	}
	return j, nil
}

// openLocked opens the file at path for this process alone.
func openLocked(path string) (*os.File, error) {
	for range lockTries {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, err
		}
		if err := lock(file); err != nil {
			file.Close()
			return nil, err
		}
		opened, err := file.Stat()
		if err == nil && !opened.Mode().IsRegular() {
			err = &fs.PathError{Op: "open", Path: path, Err: syscall.EINVAL}
		}
		if err != nil {
			file.Close()
			return nil, err
		}
		// Its last user may have put another in its place before it let go.
		if there, err := os.Stat(path); err == nil && os.SameFile(opened, there) {
			return file, nil
		}
		file.Close()
	}
	return nil, &fs.PathError{Op: "lock", Path: path, Err: syscall.EAGAIN}
}

func lock(file *os.File) error {
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return &fs.PathError{Op: "lock", Path: file.Name(), Err: err}
	}
	return nil
}

// load reads the file into the table, and leaves a good one behind.
func (j *Journal) load() error {
	data, err := j.read()
	if err != nil {
		return err
	}
	header, ok := parseJournalHeader(data)
	if !ok {
		j.table.restore(nil, nil)
		if len(data) > 0 {
			return j.setAside("it is no journal of names")
		}
		return j.rewrite()
	}
	records, rest := parseRecords(data[headerOctets:])
	if header.pool4 != j.table.pool4 || header.pool6 != j.table.pool6 {
		j.logger.Info("the pools are others than before, forgetting their names", "names", len(records))
		j.table.restore(&header.secret, nil)
		return j.rewrite()
	}
	j.table.restore(&header.secret, records)
	torn := len(rest) <= maxRecord || len(bytes.Trim(rest, "\x00")) == 0
	switch {
	case len(rest) > 0 && !torn:
		return j.setAside(fmt.Sprintf("it is damaged after %d records", len(records)))
	case len(rest) > 0:
		j.logger.Warn("the last names were not saved whole, going on without them", "file", j.path, "octets", len(rest))
	}
	j.size = int64(len(data) - len(rest))
	j.compact = max(compactFrom, 2*j.size)
	j.zero = j.table.zero()
	return j.file.Truncate(j.size)
}

func (j *Journal) read() ([]byte, error) {
	info, err := j.file.Stat()
	if err != nil {
		return nil, err
	}
	data := make([]byte, min(info.Size(), maxJournal))
	n, err := io.ReadFull(j.file, data)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return data[:n], err
}

// setAside keeps the file under another name, for whoever wants to look at it,
// and begins a new one.
func (j *Journal) setAside(why string) error {
	aside := j.path + ".bad"
	if err := os.Rename(j.path, aside); err != nil {
		return err
	}
	j.logger.Warn("the file of names was set aside", "why", why, "file", aside, "names", j.table.Len())
	return j.rewrite()
}

// Run saves what changes until ctx ends, then what is left, and closes the file.
// It returns nil: while the disk takes nothing, the table goes on in memory, and
// the log says so.
func (j *Journal) Run(ctx context.Context) error {
	defer func() { j.file.Close() }()
	var save, sync <-chan time.Time
	for {
		select {
		case <-j.table.changed:
			if save == nil {
				save = time.After(saveDelay)
			}
		case <-save:
			save = nil
			if !j.save() {
				save = time.After(failDelay)
			} else if sync == nil {
				sync = time.After(syncDelay)
			}
		case <-sync:
			sync = nil
			j.report(j.file.Sync())
		case <-ctx.Done():
			if j.save() {
				j.report(j.file.Sync())
			}
			return nil
		}
	}
}

// save writes what has changed, and reports whether it could. What it could not
// write, it will the next time.
func (j *Journal) save() bool {
	var err error
	stepped := j.table.zero() - j.zero
	slots, records := j.table.changes()
	switch {
	case j.size+int64(len(records)) > j.compact, stepped > clockStep, stepped < -clockStep:
		err = j.rewrite()
	case len(records) > 0:
		if _, err = j.file.WriteAt(records, j.size); err == nil {
			j.size += int64(len(records))
		} else {
			j.file.Truncate(j.size) // a torn end, which load knows, if that fails too
		}
	}
	if err != nil {
		j.table.unsave(slots)
	}
	return j.report(err)
}

// report logs when saving begins to go wrong, and when it goes right again, and
// reports whether it does.
func (j *Journal) report(err error) bool {
	switch failing := err != nil; {
	case failing && !j.failing:
		j.logger.Warn("names are not saved, and would be lost in a restart", "file", j.path, "err", err)
	case !failing && j.failing:
		j.logger.Info("names are saved again", "file", j.path)
	}
	j.failing = err != nil
	return err == nil
}

// rewrite puts a file with nothing but what the table has in the place of the
// one there is.
func (j *Journal) rewrite() error {
	zero := j.table.zero()
	file, size, err := j.writeNew(j.path + ".new")
	if err != nil {
		return err
	}
	if err := os.Rename(file.Name(), j.path); err != nil {
		file.Close()
		return errors.Join(err, os.Remove(file.Name()))
	}
	j.file.Close()
	j.file, j.size, j.compact, j.zero = file, size, max(compactFrom, 2*size), zero
	return syncDir(filepath.Dir(j.path))
}

// writeNew writes all that the table has to a new file at path, and locks it.
func (j *Journal) writeNew(path string) (file *os.File, size int64, err error) {
	file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			file.Close()
			os.Remove(path)
		}
	}()
	if err = lock(file); err != nil {
		return nil, 0, err
	}
	b := journalHeader{j.table.pool4, j.table.pool6, j.table.hashKey()}.append(nil)
	for from := 0; len(b) > 0; {
		if _, err = file.Write(b); err != nil {
			return nil, 0, err
		}
		size += int64(len(b))
		b, from = j.table.records(b[:0], from)
	}
	return file, size, file.Sync()
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
