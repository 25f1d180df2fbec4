//go:build unix

package etcd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/etcdstore"
)

// network is what is between the members of a cluster. Each member is reached through a proxy, which
// knows by etcd's header who has connected, so that any direction of any link can be cut: nothing of what is sent
// then arrives before the cut has healed, and no connection is closed for it.
type network struct {
	t  testing.TB
	wg sync.WaitGroup

	mu      sync.Mutex
	members map[string]int           // by their ID in etcd's header, once it is known
	cuts    map[[2]int]chan struct{} // from, to; closed when it heals
	conns   map[net.Conn]struct{}    // nil when it is over
	proxies []net.Listener
}

func newNetwork(t testing.TB) *network {
	n := &network{t: t, members: map[string]int{}, cuts: map[[2]int]chan struct{}{}, conns: map[net.Conn]struct{}{}}
	t.Cleanup(n.close)
	return n
}

func (n *network) close() {
	n.heal()
	n.mu.Lock()
	for _, l := range n.proxies {
		l.Close()
	}
	for c := range n.conns {
		c.Close()
	}
	n.conns = nil
	n.mu.Unlock()
	n.wg.Wait()
}

// proxy returns the URL at which the others reach a member, and the one that it has to listen at.
func (n *network) proxy(member int) (outside, inside url.URL) {
	n.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	inside = freeURL(n.t)
	n.mu.Lock()
	n.proxies = append(n.proxies, l)
	n.mu.Unlock()
	n.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if n.add(c) {
				n.wg.Go(func() { n.forward(c, member, inside.Host) })
			}
		}
	})
	return url.URL{Scheme: "http", Host: l.Addr().String()}, inside
}

func (n *network) add(c net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conns == nil {
		c.Close()
		return false
	}
	n.conns[c] = struct{}{}
	return true
}

func (n *network) remove(c net.Conn) {
	c.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}

// forward connects one who has dialed to a member.
func (n *network) forward(from net.Conn, member int, address string) {
	defer n.remove(from)
	var head bytes.Buffer
	req, err := http.ReadRequest(bufio.NewReaderSize(io.TeeReader(from, &head), 16))
	if err != nil {
		return
	}
	to, err := net.Dial("tcp", address)
	if err != nil || !n.add(to) {
		return
	}
	defer n.remove(to)
	dialer := req.Header.Get("X-Server-From")
	n.wg.Go(func() {
		n.copy(from, to, dialer, member, true)
		from.Close()
	})
	n.copy(to, io.MultiReader(&head, from), dialer, member, false)
}

// copy copies what is sent in one direction, while that is not cut.
func (n *network) copy(dst io.Writer, src io.Reader, dialer string, member int, back bool) {
	buf := make([]byte, 32<<10)
	for {
		k, err := src.Read(buf)
		if k > 0 {
			n.wait(dialer, member, back)
			if _, werr := dst.Write(buf[:k]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (n *network) wait(dialer string, member int, back bool) {
	for {
		n.mu.Lock()
		other, known := n.members[dialer]
		way := [2]int{other, member}
		if back {
			way = [2]int{member, other}
		}
		healed := n.cuts[way]
		n.mu.Unlock()
		if !known || healed == nil {
			return
		}
		<-healed
	}
}

// cut cuts the way from one member to another.
func (n *network) cut(from, to int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if way := [2]int{from, to}; n.cuts[way] == nil {
		n.cuts[way] = make(chan struct{})
	}
}

// heal undoes all cuts.
func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, healed := range n.cuts {
		close(healed)
	}
	clear(n.cuts)
}

// learn tells who is who.
func (n *network) learn(ctx context.Context, c *cluster) {
	n.t.Helper()
	client := c.client()
	defer client.Close()
	list, err := client.MemberList(ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range list.Members {
		n.members[hex(m.ID)] = int(m.Name[len(m.Name)-1] - '0')
	}
}

// A leader that is cut off is one no longer, and commits nothing, until the cut has healed.
func TestNetworkCut(t *testing.T) {
	c := startCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	leader := -1
	for leader < 0 && ctx.Err() == nil {
		leader = c.leader(ctx)
	}
	lonely := connect(t, c.clients[leader].String(), etcdstore.Options{Prefix: "/t/"})
	for i := range c.servers {
		c.network.cut(leader, i)
		c.network.cut(i, leader)
	}
	for now := leader; now < 0 || now == leader; now = c.leader(ctx) {
		if ctx.Err() != nil {
			t.Fatal("the others do not elect a leader")
		}
		sleep(ctx, 50*time.Millisecond)
	}
	attempt, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := lonely.Commit(attempt, store.Put("a", []byte("1"), store.Absent())); !errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("a commit by the member that was cut off: %v, want ErrUnknownOutcome", err)
	}
	other := connect(t, c.clients[(leader+1)%3].String(), etcdstore.Options{Prefix: "/t/"})
	if _, err := other.Commit(ctx, store.Put("b", []byte("2"), store.Absent())); err != nil {
		t.Error(err)
	}
	c.network.heal()
	for {
		if res, err := lonely.Get(ctx, "b", 0); err == nil && res.KV != nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("the member that was cut off does not come back")
		}
		sleep(ctx, 50*time.Millisecond)
	}
}
