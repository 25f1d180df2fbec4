package store

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
)

// A snapshot is
//
//	the magic line | revision uint64
//	for each pair, in the order of keys: 1 | len(key) key | create | mod | len(value) value
//	0 | number of pairs | sha256 of all before it
//
// with big-endian numbers of fixed width and varints everywhere else.
const snapshotMagic = "keelson store snapshot 1\n"

const (
	snapshotPage = 1000
	// maxSnapshotItem bounds what a damaged length can make Restore allocate.
	maxSnapshotItem = 1 << 30
	restoreBatch    = 100
	restoreBytes    = 1 << 20
)

// ErrBadSnapshot reports a snapshot that is cut, damaged or none at all.
var ErrBadSnapshot = errors.New("store: bad snapshot")

// Advancer is implemented by stores that can skip revisions.
type Advancer interface {
	// Advance raises the newest revision to at least rev and compacts to it, so that no
	// revision handed out before can be read or watched from. Nothing else changes.
	Advance(ctx context.Context, rev int64) error
}

// AdvanceLimiter is an Advancer that cannot skip any number of revisions, or not in reasonable time.
type AdvanceLimiter interface {
	Advancer
	// MaxAdvance is how many revisions Advance skips at most; more are ErrInvalid.
	MaxAdvance() int64
}

// SnapshotInfo is what a snapshot holds.
type SnapshotInfo struct {
	// Revision of the store that the snapshot was taken at.
	Revision int64
	// Keys is the number of pairs.
	Keys int64
	// Bytes is the size of the snapshot.
	Bytes int64
	// Checksum is the SHA-256 at its end.
	Checksum [sha256.Size]byte
}

// Snapshot writes all pairs of s, as they are at one revision, while s goes on being written.
// progress, if not nil, is called now and then with what has been written so far. If the
// revision is compacted before the end the error wraps ErrCompacted, and the caller may try again.
// What was written is of no use when an error is returned.
func Snapshot(ctx context.Context, s Store, w io.Writer, progress func(SnapshotInfo)) (SnapshotInfo, error) {
	var info SnapshotInfo
	sum := sha256.New()
	buf := bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<16)
	opts := ListOptions{Limit: snapshotPage}
	var b []byte
	write := func() error {
		n, err := buf.Write(b)
		info.Bytes += int64(n)
		b = b[:0]
		return err
	}
	for first := true; ; first = false {
		page, err := s.List(ctx, opts)
		if err != nil {
			return info, fmt.Errorf("store: snapshot: %w", err)
		}
		if first {
			info.Revision, opts.Revision = page.Revision, page.Revision
			b = binary.BigEndian.AppendUint64(append(b, snapshotMagic...), uint64(page.Revision))
		}
		for i := range page.KVs {
			kv := &page.KVs[i]
			b = append(b, 1)
			b = append(binary.AppendUvarint(b, uint64(len(kv.Key))), kv.Key...)
			b = binary.AppendUvarint(b, uint64(kv.CreateRevision))
			b = binary.AppendUvarint(b, uint64(kv.ModRevision))
			b = append(binary.AppendUvarint(b, uint64(len(kv.Value))), kv.Value...)
			if err := write(); err != nil {
				return info, fmt.Errorf("store: snapshot: %w", err)
			}
			info.Keys++
			opts.After = kv.Key
		}
		if progress != nil {
			progress(info)
		}
		if !page.More {
			break
		}
	}
	b = binary.AppendUvarint(append(b, 0), uint64(info.Keys))
	err := write()
	if err == nil {
		err = buf.Flush()
	}
	if err == nil {
		sum.Sum(info.Checksum[:0])
		var n int
		n, err = w.Write(info.Checksum[:])
		info.Bytes += int64(n)
	}
	if err != nil {
		return info, fmt.Errorf("store: snapshot: %w", err)
	}
	return info, nil
}

// ReadSnapshot reads a snapshot, calls visit for every pair in order, and checks it: whatever
// visit was given before an error is returned may be wrong. visit may be nil, to verify only.
func ReadSnapshot(r io.Reader, visit func(KV) error) (SnapshotInfo, error) {
	in := &snapshotReader{r: bufio.NewReaderSize(r, 1<<16), sum: sha256.New()}
	info, err := in.read(visit)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: it ends after %d bytes", ErrBadSnapshot, in.n)
	}
	return info, err
}

type snapshotReader struct {
	r   *bufio.Reader
	sum hash.Hash
	n   int64
	one [1]byte
}

func (in *snapshotReader) bad(what string) error {
	return fmt.Errorf("%w: %s at byte %d", ErrBadSnapshot, what, in.n)
}

func (in *snapshotReader) ReadByte() (byte, error) {
	c, err := in.r.ReadByte()
	if err == nil {
		in.one[0] = c
		in.sum.Write(in.one[:])
		in.n++
	}
	return c, err
}

func (in *snapshotReader) full(b []byte) error {
	n, err := io.ReadFull(in.r, b)
	in.sum.Write(b[:n])
	in.n += int64(n)
	return err
}

// bytes reads a length and as many bytes, without believing the length.
func (in *snapshotReader) bytes() ([]byte, error) {
	n, err := binary.ReadUvarint(in)
	if err != nil {
		return nil, err
	}
	if n > maxSnapshotItem {
		return nil, in.bad("a length is out of range")
	}
	var out []byte
	for step := uint64(1 << 16); uint64(len(out)) < n; step *= 2 {
		from := len(out)
		out = append(out, make([]byte, min(step, n-uint64(from)))...)
		if err := in.full(out[from:]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (in *snapshotReader) read(visit func(KV) error) (info SnapshotInfo, err error) {
	head := make([]byte, len(snapshotMagic)+8)
	if err := in.full(head); err != nil || string(head[:len(snapshotMagic)]) != snapshotMagic {
		return info, fmt.Errorf("%w: it does not begin like one", ErrBadSnapshot)
	}
	info.Revision = int64(binary.BigEndian.Uint64(head[len(snapshotMagic):]))
	if info.Revision < 1 {
		return info, in.bad("the revision is out of range")
	}
	last := ""
	for {
		kind, err := in.ReadByte()
		if err != nil {
			return info, err
		}
		if kind == 0 {
			break
		}
		if kind != 1 {
			return info, in.bad("unknown record")
		}
		var kv KV
		key, err := in.bytes()
		if err != nil {
			return info, err
		}
		create, err := binary.ReadUvarint(in)
		if err != nil {
			return info, err
		}
		mod, err := binary.ReadUvarint(in)
		if err != nil {
			return info, err
		}
		if kv.Value, err = in.bytes(); err != nil {
			return info, err
		}
		kv.Key, kv.CreateRevision, kv.ModRevision = string(key), int64(create), int64(mod)
		if kv.Key <= last || kv.CreateRevision < 1 || kv.ModRevision < kv.CreateRevision || kv.ModRevision > info.Revision {
			return info, in.bad("a pair is out of order or has impossible revisions")
		}
		last = kv.Key
		info.Keys++
		if visit != nil {
			if err := visit(kv); err != nil {
				return info, err
			}
		}
	}
	n, err := binary.ReadUvarint(in)
	if err != nil {
		return info, err
	}
	if int64(n) != info.Keys {
		return info, in.bad("the number of pairs is wrong")
	}
	want := in.sum.Sum(nil)
	if err := in.full(info.Checksum[:]); err != nil {
		return info, err
	}
	if string(want) != string(info.Checksum[:]) {
		return info, in.bad("the checksum is wrong")
	}
	if _, err := in.ReadByte(); err != io.EOF {
		return info, in.bad("something follows the checksum")
	}
	info.Bytes = in.n
	return info, nil
}

// RestoreOptions of Restore; the zero value is the default.
type RestoreOptions struct {
	// Skip is how far above the snapshot's revision the restored store continues: more than
	// there have been commits since the snapshot was taken. 0 means 1,000,000,000, or a tenth of what an AdvanceLimiter can.
	Skip int64
	// KeepRevisions leaves the store at the revision that restoring leads to, as it has to be
	// when it is no Advancer. Then clients that remember revisions have to be restarted:
	// theirs mean something else in this store.
	KeepRevisions bool
	// Progress, if not nil, is called now and then.
	Progress func(RestoreProgress)
}

// RestoreProgress is how far a restore has come.
type RestoreProgress struct {
	Keys int64 // pairs that are in the store
	// Revision that the store has come to on the way to Target, which are 0 before all pairs are there.
	Revision, Target int64
}

// Restore puts the pairs of a snapshot into s, which must be empty. The revisions of the pairs
// are new, and s continues above every revision that was handed out before, all of which are
// compacted, so that old watchers and readers get ErrCompacted and list again rather than miss
// something. The snapshot is checked as it is read: read it with ReadSnapshot before, or throw s
// away if there is an error.
func Restore(ctx context.Context, s Store, r io.Reader, opts RestoreOptions) (SnapshotInfo, error) {
	adv, ok := s.(Advancer)
	if !ok && !opts.KeepRevisions {
		return SnapshotInfo{}, fmt.Errorf("%w: restore: %T cannot skip revisions, want RestoreOptions.KeepRevisions", ErrInvalid, s)
	}
	if opts.Skip < 0 {
		return SnapshotInfo{}, fmt.Errorf("%w: restore: RestoreOptions.Skip is %d", ErrInvalid, opts.Skip)
	}
	limit := int64(math.MaxInt64)
	if l, ok := s.(AdvanceLimiter); ok {
		limit = l.MaxAdvance()
	}
	if opts.Skip == 0 {
		opts.Skip = min(1_000_000_000, limit/10)
	}
	if opts.Skip > limit && !opts.KeepRevisions {
		return SnapshotInfo{}, fmt.Errorf("%w: restore: RestoreOptions.Skip is %d, want at most %d for %T", ErrInvalid, opts.Skip, limit, s)
	}
	if err := mustBeEmpty(ctx, s, ""); err != nil {
		return SnapshotInfo{}, fmt.Errorf("store: restore: %w", err)
	}
	if opts.Progress == nil {
		opts.Progress = func(RestoreProgress) {}
	}
	out := batcher{dst: s, fresh: true}
	var p RestoreProgress
	info, err := ReadSnapshot(r, func(kv KV) error {
		if p.Keys++; p.Keys%snapshotPage == 0 {
			opts.Progress(p)
		}
		return out.put(ctx, kv.Key, kv.Value)
	})
	if err == nil {
		err = out.flush(ctx)
	}
	if err == nil && !opts.KeepRevisions {
		p.Target = info.Revision + opts.Skip
		err = skip(ctx, s, adv, p, opts.Progress)
	}
	if err != nil {
		return info, fmt.Errorf("store: restore: %w", err)
	}
	return info, nil
}

// skipStep is how many revisions are skipped at once where each takes time.
const skipStep = 20_000

// skip advances a store to p.Target.
func skip(ctx context.Context, s Store, adv Advancer, p RestoreProgress, progress func(RestoreProgress)) (err error) {
	if _, slow := adv.(AdvanceLimiter); !slow {
		return adv.Advance(ctx, p.Target)
	}
	if p.Revision, _, err = s.Revision(ctx); err != nil {
		return err
	}
	for {
		progress(p)
		p.Revision = min(p.Revision+skipStep, p.Target)
		if err := adv.Advance(ctx, p.Revision); err != nil || p.Revision >= p.Target {
			return err
		}
	}
}

func mustBeEmpty(ctx context.Context, s Store, prefix string) error {
	res, err := s.List(ctx, ListOptions{Prefix: prefix, Limit: 1, KeysOnly: true})
	if err == nil && len(res.KVs) > 0 {
		err = fmt.Errorf("%w: the store is not empty, it has %q", ErrInvalid, res.KVs[0].Key)
	}
	return err
}

// batcher groups puts and deletes of different keys into commits.
type batcher struct {
	dst   Store
	fresh bool // what is put must not be there
	ops   []Op
	keys  map[string]bool
	bytes int
}

func (b *batcher) put(ctx context.Context, key string, value []byte) error {
	cond := Any()
	if b.fresh {
		cond = Absent()
	}
	return b.add(ctx, Put(key, value, cond), len(key)+len(value))
}

func (b *batcher) add(ctx context.Context, op Op, bytes int) error {
	if b.keys[op.Key] || len(b.ops) > 0 && (len(b.ops) >= restoreBatch || b.bytes+bytes > restoreBytes) {
		if err := b.flush(ctx); err != nil {
			return err
		}
	}
	if b.keys == nil {
		b.keys = map[string]bool{}
	}
	b.ops, b.bytes = append(b.ops, op), b.bytes+bytes
	b.keys[op.Key] = true
	return nil
}

func (b *batcher) flush(ctx context.Context) error {
	if len(b.ops) == 0 {
		return nil
	}
	_, err := b.dst.Commit(ctx, b.ops...)
	b.ops, b.keys, b.bytes = nil, nil, 0
	return err
}
