//go:build linux

package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// maxMessage bounds a message, so that a broken peer can't make the reader allocate without end.
const maxMessage = 16 << 20

// Conn carries messages. Send and Recv may be called concurrently with each other, and Send with itself.
type Conn struct {
	*net.UnixConn
	sendMu sync.Mutex
}

// NewConn wraps an open connection.
func NewConn(c *net.UnixConn) *Conn { return &Conn{UnixConn: c} }

// FromFile makes a connection of an inherited socket and closes the file.
func FromFile(f *os.File) (*Conn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("file %s is a %T, not a unix socket", f.Name(), c)
	}
	return NewConn(u), nil
}

// Pair returns two connected ends: one to use here and one to hand to a child process.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	child := os.NewFile(uintptr(fds[1]), "child")
	here, err := FromFile(os.NewFile(uintptr(fds[0]), "here"))
	if err != nil {
		child.Close()
		return nil, nil, err
	}
	return here, child, nil
}

// Dial connects to the socket in a directory, however long the directory's path is.
func Dial(dir, name string) (*Conn, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: socketPath(d, name)})
	if err != nil {
		return nil, err
	}
	return NewConn(c), nil
}

// Listen makes the socket in a directory, however long the directory's path is, readable by its owner only.
func Listen(dir, name string) (*net.UnixListener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: socketPath(d, name)})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(filepath.Join(dir, name), 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// socketPath keeps within the 108 bytes that a socket address may have.
func socketPath(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}

// Send writes one message with its files, which stay open here.
func (c *Conn) Send(v any, files ...*os.File) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	msg := binary.BigEndian.AppendUint32(make([]byte, 0, len(body)+4), uint32(len(body)))
	msg = append(msg, body...)
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	n, _, err := c.WriteMsgUnix(msg, oob, nil)
	if err != nil {
		return err
	}
	if n < len(msg) {
		_, err = c.Write(msg[n:])
	}
	return err
}

// Recv reads one message and the files that came with it, which the caller closes. io.EOF means that
// the peer is gone.
func (c *Conn) Recv(v any) ([]*os.File, error) {
	var head [4]byte
	oob := make([]byte, unix.CmsgSpace(8*4))
	n, oobn, _, _, err := c.ReadMsgUnix(head[:], oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	files, err := parseRights(oob[:oobn])
	if err != nil {
		return nil, err
	}
	fail := func(err error) ([]*os.File, error) {
		for _, f := range files {
			f.Close()
		}
		return nil, err
	}
	if _, err := io.ReadFull(c, head[n:]); err != nil {
		return fail(err)
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxMessage {
		return fail(fmt.Errorf("message of %d bytes is over the limit of %d", size, maxMessage))
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(c, body); err != nil {
		return fail(err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fail(err)
	}
	return files, nil
}

func parseRights(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

// Stream numbers the kinds of binary frames.
type Stream byte

const (
	Stdin Stream = iota
	Stdout
	Stderr
	Resize     // payload: width and height, two big-endian uint16
	CloseStdin // no payload
)

const maxFrame = 1 << 20

// SendFrame writes one binary frame.
func (c *Conn) SendFrame(s Stream, p []byte) error {
	msg := append(binary.BigEndian.AppendUint32([]byte{byte(s)}, uint32(len(p))), p...)
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	_, err := c.Write(msg)
	return err
}

// RecvFrame reads one binary frame.
func (c *Conn) RecvFrame() (Stream, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > maxFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes is over the limit of %d", size, maxFrame)
	}
	p := make([]byte, size)
	_, err := io.ReadFull(c, p)
	return Stream(head[0]), p, err
}
