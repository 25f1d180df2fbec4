package powercut

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// notesFile is where a workload writes what it does and what was acknowledged. It goes into the record, but not on the disk.
const notesFile = "notes"

type opKind uint8

const (
	opWrite opKind = iota
	opTruncate
	opSync
	opCreate
	opLink
	opUnlink
	opRename
	opSyncDir
	opNote
)

var opNames = [...]string{"write", "truncate", "sync", "create", "link", "unlink", "rename", "syncdir", "note"}

// op is one thing that a disk was asked to do.
type op struct {
	kind     opKind
	ino      int
	off      int64 // of a write, the size of a truncate
	data     []byte
	name, to string
	failed   bool // a sync that was answered with an error
}

// fault makes a disk fail at its n-th operation, or the n-th of some kind, and at those after it.
type fault struct {
	n, length int
	kind      *opKind
	errno     syscall.Errno
	short     bool // a write does half of what it should, without an error
}

// disk is a directory that records what is done in it.
type disk struct {
	mu     sync.Mutex
	ops    []op
	inodes int
	names  map[string]int
	start  image
	noLink bool // there are no hard links, as on some file systems
	fault  fault
	count  int
	hit    string // the first operation that the fault has met
}

// image is the contents of files by name.
type image map[string][]byte

// record notes o and reports whether it is to fail. The caller holds d.mu.
func (d *disk) record(o op) syscall.Errno {
	counts := d.fault.kind == nil || *d.fault.kind == o.kind
	if counts {
		d.count++
	}
	if counts && d.fault.length > 0 && d.count >= d.fault.n && d.count < d.fault.n+d.fault.length {
		if d.hit == "" {
			d.hit = opNames[o.kind]
		}
		if !d.fault.short {
			if o.kind == opSync || o.kind == opSyncDir {
				o.failed = true
				d.ops = append(d.ops, o)
			}
			return d.fault.errno
		}
	}
	d.ops = append(d.ops, o)
	return 0
}

// node is a file of a disk.
type node struct {
	fs.Inode
	disk *disk
	ino  int
	data []byte
	size int64
	note bool
}

// dir is the directory of a disk.
type dir struct {
	fs.Inode
	disk *disk
}

var (
	_ fs.NodeCreater   = (*dir)(nil)
	_ fs.NodeLinker    = (*dir)(nil)
	_ fs.NodeUnlinker  = (*dir)(nil)
	_ fs.NodeRenamer   = (*dir)(nil)
	_ fs.NodeFsyncer   = (*dir)(nil)
	_ fs.NodeOpener    = (*node)(nil)
	_ fs.NodeReader    = (*node)(nil)
	_ fs.NodeWriter    = (*node)(nil)
	_ fs.NodeFsyncer   = (*node)(nil)
	_ fs.NodeSetattrer = (*node)(nil)
	_ fs.NodeGetattrer = (*node)(nil)
)

func (d *dir) Create(ctx context.Context, name string, _, _ uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	d.disk.mu.Lock()
	defer d.disk.mu.Unlock()
	n := &node{disk: d.disk, note: name == notesFile}
	if !n.note {
		n.ino = d.disk.inodes
		if errno := d.disk.record(op{kind: opCreate, ino: n.ino, name: name}); errno != 0 {
			return nil, nil, 0, errno
		}
		d.disk.inodes++
		d.disk.names[name] = n.ino
	}
	return d.NewPersistentInode(ctx, n, fs.StableAttr{Mode: syscall.S_IFREG}), nil, 0, 0
}

func (d *dir) Link(_ context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	d.disk.mu.Lock()
	defer d.disk.mu.Unlock()
	n := target.(*node)
	if d.disk.noLink {
		return nil, syscall.EPERM
	}
	if errno := d.disk.record(op{kind: opLink, ino: n.ino, name: name}); errno != 0 {
		return nil, errno
	}
	d.disk.names[name] = n.ino
	out.Size = uint64(n.size)
	return n.EmbeddedInode(), 0
}

func (d *dir) Unlink(_ context.Context, name string) syscall.Errno {
	d.disk.mu.Lock()
	defer d.disk.mu.Unlock()
	if errno := d.disk.record(op{kind: opUnlink, name: name}); errno != 0 {
		return errno
	}
	delete(d.disk.names, name)
	return 0
}

func (d *dir) Rename(_ context.Context, name string, _ fs.InodeEmbedder, to string, _ uint32) syscall.Errno {
	d.disk.mu.Lock()
	defer d.disk.mu.Unlock()
	if errno := d.disk.record(op{kind: opRename, name: name, to: to}); errno != 0 {
		return errno
	}
	d.disk.names[to] = d.disk.names[name]
	delete(d.disk.names, name)
	return 0
}

func (d *dir) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	d.disk.mu.Lock()
	defer d.disk.mu.Unlock()
	return d.disk.record(op{kind: opSyncDir})
}

func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_TRUNC != 0 {
		if errno := n.truncate(0); errno != 0 {
			return nil, 0, errno
		}
	}
	return nil, 0, 0
}

func (n *node) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if off >= n.size {
		return fuse.ReadResultData(nil), 0
	}
	dest = dest[:min(int64(len(dest)), n.size-off)]
	clear(dest)
	if off < int64(len(n.data)) {
		copy(dest, n.data[off:])
	}
	return fuse.ReadResultData(dest), 0
}

func (n *node) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if n.note {
		// The kernel may split what was written at once, and a kill may come in between.
		if bytes.HasPrefix(data, []byte(`{"What"`)) {
			n.data = nil
		}
		if n.data = append(n.data, data...); data[len(data)-1] == '\n' {
			n.disk.ops = append(n.disk.ops, op{kind: opNote, data: n.data})
			n.data = nil
		}
		n.size = off + int64(len(data))
		return uint32(len(data)), 0
	}
	d := n.disk
	o := op{kind: opWrite, ino: n.ino, off: off, data: bytes.Clone(data)}
	before := d.hit
	errno := d.record(o)
	if errno != 0 || d.hit != "" && before == "" && d.fault.short {
		// What has failed may have been done in part.
		o.data = o.data[:len(data)/2]
		if errno == 0 {
			d.ops = d.ops[:len(d.ops)-1]
		}
		d.ops = append(d.ops, o)
	}
	n.put(o.data, off)
	return uint32(len(o.data)), errno
}

func (n *node) put(data []byte, off int64) {
	end := off + int64(len(data))
	if end > int64(len(n.data)) {
		n.data = append(n.data, make([]byte, end-int64(len(n.data)))...)
	}
	copy(n.data[off:], data)
	n.size = max(n.size, end)
}

func (n *node) truncate(size int64) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if !n.note {
		if errno := n.disk.record(op{kind: opTruncate, ino: n.ino, off: size}); errno != 0 {
			return errno
		}
	}
	n.size = size
	n.data = n.data[:min(size, int64(len(n.data)))]
	return 0
}

func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if n.note {
		return 0
	}
	return n.disk.record(op{kind: opSync, ino: n.ino})
}

func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	out.Mode, out.Size, out.Nlink = 0o600, uint64(n.size), 1
	return 0
}

func (n *node) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		if errno := n.truncate(int64(size)); errno != 0 {
			return errno
		}
	}
	return n.Getattr(ctx, f, out)
}

// mount is the file system that all disks of a test are in.
type mount struct {
	path string
	root *fs.Inode
}

// newMount mounts it, or skips the test where that is not possible.
func newMount(t *testing.T) *mount {
	t.Helper()
	path := t.TempDir()
	root := &fs.Inode{}
	opts := &fs.Options{}
	opts.DirectMount = true
	opts.FsName = "powercut"
	server, err := fs.Mount(path, root, opts)
	if err != nil {
		if os.Getenv("KEELSON_REQUIRE_PRIVILEGED") == "1" {
			t.Fatalf("mounting a FUSE file system: %v", err)
		}
		t.Skipf("a FUSE file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Errorf("unmounting: %v", err)
		}
		server.Wait()
	})
	return &mount{path, root}
}

// disk makes a disk with what start has, and returns its directory.
func (m *mount) disk(name string, start image) (*disk, string) {
	ctx := context.Background()
	d := &disk{names: map[string]int{}, start: start}
	dn := &dir{disk: d}
	m.root.AddChild(name, m.root.NewPersistentInode(ctx, dn, fs.StableAttr{Mode: syscall.S_IFDIR}), true)
	for _, file := range slices.Sorted(keysOf(start)) {
		n := &node{disk: d, ino: d.inodes}
		n.put(start[file], 0)
		d.names[file] = d.inodes
		d.inodes++
		dn.AddChild(file, dn.NewPersistentInode(ctx, n, fs.StableAttr{Mode: syscall.S_IFREG}), true)
	}
	return d, filepath.Join(m.path, name)
}

// done returns the record of a disk that is not used any more.
func (m *mount) done(name string, d *disk) []op {
	d.mu.Lock()
	defer d.mu.Unlock()
	m.root.RmChild(name)
	return d.ops
}
