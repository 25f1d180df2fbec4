//go:build unix

package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/etcdstore"
	"github.com/keelson/keelson/store/storetest"
)

// cluster is an etcd of three members.
type cluster struct {
	t       testing.TB
	network *network
	clients []url.URL
	env     [][]string
	servers []*server
}

func startCluster(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{t: t, network: newNetwork(t)}
	var members []string
	for i := range 3 {
		name := fmt.Sprint("m", i)
		peer, inside := c.network.proxy(i)
		c.clients = append(c.clients, freeURL(t))
		members = append(members, name+"="+peer.String())
		c.env = append(c.env, []string{childEnv + "=" + t.TempDir(), "PEER_URL=" + peer.String(), "PEER_LISTEN_URL=" + inside.String(), "NAME=" + name})
	}
	for i := range c.env {
		c.env[i] = append(c.env[i], "CLUSTER="+strings.Join(members, ","))
		c.servers = append(c.servers, launch(t, c.clients[i], c.env[i]...))
	}
	t.Cleanup(func() {
		for _, s := range c.servers {
			s.kill()
		}
	})
	for _, s := range c.servers {
		if err := s.ready(); err != nil {
			t.Fatal(err)
		}
	}
	c.network.learn(t.Context(), c)
	return c
}

func (c *cluster) client() *clientv3.Client {
	c.t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: c.endpoints(), DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}

// hex is how etcd writes the ID of a member.
func hex(id uint64) string { return strconv.FormatUint(id, 16) }

func (c *cluster) endpoints() []string {
	var out []string
	for i := range c.clients {
		out = append(out, c.clients[i].String())
	}
	return out
}

// faults kills members and starts them again, pauses them, and cuts the network between them, until ctx ends.
func (c *cluster) faults(ctx context.Context) (n map[string]int) {
	n = map[string]int{}
	kinds := []struct {
		name string
		do   func(member, other int)
	}{
		{"killed", func(member, _ int) {
			c.servers[member].kill()
			sleep(ctx, 300*time.Millisecond)
			c.servers[member] = launch(c.t, c.clients[member], c.env[member]...)
			if err := c.servers[member].ready(); err != nil {
				c.t.Errorf("member %d: %v", member, err)
			}
		}},
		{"paused", func(member, _ int) {
			_ = c.servers[member].cmd.Process.Signal(syscall.SIGSTOP)
			sleep(ctx, 900*time.Millisecond)
			_ = c.servers[member].cmd.Process.Signal(syscall.SIGCONT)
		}},
		{"isolated", func(member, _ int) {
			for i := range c.servers {
				c.network.cut(member, i)
				c.network.cut(i, member)
			}
			sleep(ctx, 1200*time.Millisecond)
		}},
		{"link cut", func(member, other int) {
			c.network.cut(member, other)
			c.network.cut(other, member)
			sleep(ctx, 1200*time.Millisecond)
		}},
		{"cut one way", func(member, other int) {
			c.network.cut(member, other)
			sleep(ctx, 1200*time.Millisecond)
		}},
		{"deaf", func(member, _ int) { // it sends, and hears nothing
			for i := range c.servers {
				c.network.cut(i, member)
			}
			sleep(ctx, 1200*time.Millisecond)
		}},
	}
	for i := 0; ctx.Err() == nil && !c.t.Failed(); i++ {
		kind, member := kinds[i%len(kinds)], rand.IntN(len(c.servers))
		if kind.name != "killed" {
			if leader := c.leader(ctx); leader >= 0 && rand.IntN(3) > 0 {
				member = leader // it is the one that matters
			}
		}
		kind.do(member, (member+1+rand.IntN(2))%len(c.servers))
		c.network.heal()
		n[kind.name]++
		sleep(ctx, 400*time.Millisecond)
	}
	return n
}

// leader returns the member that says that it leads, -1 if none does at once.
func (c *cluster) leader(ctx context.Context) int {
	client := c.client()
	defer client.Close()
	for i, endpoint := range c.endpoints() {
		attempt, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		st, err := client.Status(attempt, endpoint)
		cancel()
		if err == nil && st.Leader == st.Header.MemberId {
			return i
		}
	}
	return -1
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Clients work on a cluster whose members are killed and paused, and cannot always hear each other. What they see is linearizable,
// and a watcher's view, folded, is what the store has in the end.
func TestClusterWithFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 30 seconds")
	}
	c := startCluster(t)
	var rec storetest.Recorder
	unknown := 0
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 24*time.Second)
	defer cancel()
	watched, err := etcdstore.New(t.Context(), c.endpoints(), etcdstore.Options{Prefix: "/t/", KeepAlive: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { watched.Close() })
	w, err := watched.Watch(t.Context(), store.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for i := range 3 {
		s, err := etcdstore.New(t.Context(), c.endpoints(), etcdstore.Options{Prefix: "/t/", KeepAlive: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		wg.Go(func() {
			storetest.Drive(ctx, s, storetest.DriveOptions{
				Clients: 2, Keys: 6, Seed: uint64(i), Tag: fmt.Sprint("s", i), Timeout: 2 * time.Second,
				Done: func(op storetest.Operation) {
					op.Client += 10 * i
					if op.Outcome == "unknown" {
						op.Return = 0 // it may still happen
					}
					rec.Done(op)
					time.Sleep(10 * time.Millisecond) // enough operations, and few enough to check
				},
			})
		})
	}
	faults := c.faults(ctx)
	wg.Wait()
	history := rec.Operations()
	for _, op := range history {
		if op.Outcome == "unknown" {
			unknown++
		}
	}
	if err := storetest.Linearizable(history); err != nil {
		t.Error(err)
	}
	t.Logf("%d operations, %d of unknown outcome, faults: %v", len(history), unknown, faults)

	end, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var final store.ListResult
	for {
		if final, err = watched.List(end, store.ListOptions{}); err == nil {
			_, _, err = watched.Revision(end)
		}
		if err == nil {
			break
		}
		if end.Err() != nil {
			t.Fatalf("the cluster does not recover: %v", err)
		}
		sleep(end, 100*time.Millisecond)
	}
	view := map[string]store.KV{}
	for reached := int64(0); reached < final.Revision; {
		b, err := w.Next(end)
		if err != nil {
			t.Fatalf("the watcher, at revision %d of %d: %v", reached, final.Revision, err)
		}
		for _, ev := range b.Events {
			have, ok := view[ev.KV.Key]
			if ok != (ev.Prev != nil) || ok && have.ModRevision != ev.Prev.ModRevision {
				t.Fatalf("the event of %q at %d follows %v, the watcher has %v", ev.KV.Key, ev.KV.ModRevision, ev.Prev, have)
			}
			if ev.Deleted {
				delete(view, ev.KV.Key)
			} else {
				view[ev.KV.Key] = ev.KV
			}
		}
		reached = b.Revision
	}
	for _, kv := range final.KVs {
		if have := view[kv.Key]; have.ModRevision != kv.ModRevision || string(have.Value) != string(kv.Value) {
			t.Errorf("the watcher has %+v, the store %+v", have, kv)
		}
	}
	if len(view) != len(final.KVs) {
		t.Errorf("the watcher has %d keys, the store %d", len(view), len(final.KVs))
	}
	// Without a majority nothing is acknowledged.
	c.servers[0].kill()
	c.servers[1].kill()
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := watched.Commit(short, store.Put("x", nil, store.Any())); !errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("a commit without a majority: %v, want ErrUnknownOutcome", err)
	}
}
