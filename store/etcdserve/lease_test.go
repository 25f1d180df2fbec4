package etcdserve_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/boltstore"
	"github.com/keelson/keelson/store/etcdserve"
	"github.com/keelson/keelson/store/etcdserve/etcdservetest"
)

func TestLeases(t *testing.T) {
	clk := clocktesting.NewFakeClock(time.Now())
	path := filepath.Join(t.TempDir(), "s")
	bolt, err := boltstore.Open(path, boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	endpoint, stop := etcdservetest.Serve(t, bolt, etcdserve.Options{Clock: clk})
	c := client(t, endpoint)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	lease, err := c.Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"a", "b", "c"} {
		if _, err := c.Put(ctx, k, "v", clientv3.WithLease(lease.ID)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Put(ctx, "c", "no lease"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(ctx, "x", "v", clientv3.WithLease(12345)); err != rpctypes.ErrLeaseNotFound {
		t.Errorf("a lease that is not there: %v", err)
	}
	ttl, err := c.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	if err != nil || ttl.GrantedTTL != 60 || ttl.TTL != 60 || string(bytes.Join(ttl.Keys, []byte(","))) != "a,b" {
		t.Errorf("%+v, %v", ttl, err)
	}
	if res, err := c.Get(ctx, "a"); err != nil || res.Kvs[0].Lease != int64(lease.ID) {
		t.Errorf("%+v, %v", res, err)
	}
	// It is still there after a restart, with its time and keys.
	c.Close()
	stop()
	if err := bolt.Close(); err != nil {
		t.Fatal(err)
	}
	if bolt, err = boltstore.Open(path, boltstore.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bolt.Close() })
	endpoint, _ = etcdservetest.Serve(t, bolt, etcdserve.Options{Clock: clk})
	c = client(t, endpoint)
	watch := c.Watch(ctx, "", clientv3.WithPrefix())
	if all, err := c.Leases(ctx); err != nil || len(all.Leases) != 1 || all.Leases[0].ID != lease.ID {
		t.Fatalf("%+v, %v", all, err)
	}
	clk.Step(50 * time.Second)
	if ka, err := c.KeepAliveOnce(ctx, lease.ID); err != nil || ka.TTL != 60 {
		t.Fatalf("%+v, %v", ka, err)
	}
	clk.Step(50 * time.Second)
	if res, err := c.Get(ctx, "a"); err != nil || len(res.Kvs) != 1 {
		t.Fatalf("a lease that was kept alive: %+v, %v", res, err)
	}
	deleted, rev := 0, int64(0)
	for deleted < 2 {
		clk.Step(11 * time.Second)
		select {
		case res := <-watch:
			for _, e := range res.Events {
				if e.Type != clientv3.EventTypeDelete || rev != 0 && e.Kv.ModRevision != rev {
					t.Errorf("event %+v", e)
				}
				rev = e.Kv.ModRevision
				deleted++
			}
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("the lease does not expire")
		}
	}
	if res, err := c.Get(ctx, "", clientv3.WithPrefix()); err != nil || len(res.Kvs) != 1 || string(res.Kvs[0].Key) != "c" {
		t.Errorf("after the lease there is %+v, %v", res, err)
	}
	if _, err := c.KeepAliveOnce(ctx, lease.ID); err != rpctypes.ErrLeaseNotFound {
		t.Errorf("keeping an expired lease alive: %v", err)
	}
	if _, err := c.Revoke(ctx, lease.ID); err != rpctypes.ErrLeaseNotFound {
		t.Errorf("revoking an expired lease: %v", err)
	}
}

// brokenStore is a store that takes no commits when it is broken.
type brokenStore struct {
	store.Store
	broken atomic.Bool
}

func (b *brokenStore) Commit(ctx context.Context, ops ...store.Op) (int64, error) {
	if b.broken.Load() {
		return 0, errors.New("made up")
	}
	return b.Store.Commit(ctx, ops...)
}

// With a store for them, leases outlive a restart before they have keys, and what was revoked does not come back.
func TestLeasesWithoutKeys(t *testing.T) {
	dir := t.TempDir()
	open := func(name string) *boltstore.Store {
		s, err := boltstore.Open(filepath.Join(dir, name), boltstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	clk := clocktesting.NewFakeClock(time.Now())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, leases := open("s"), open("leases")
	endpoint, stop := etcdservetest.Serve(t, s, etcdserve.Options{Clock: clk, Leases: leases})
	c := client(t, endpoint)
	restart := func() {
		t.Helper()
		c.Close()
		stop()
		if err := errors.Join(s.Close(), leases.Close()); err != nil {
			t.Fatal(err)
		}
		s, leases = open("s"), open("leases")
		endpoint, stop = etcdservetest.Serve(t, s, etcdserve.Options{Clock: clk, Leases: leases})
		c = client(t, endpoint)
	}
	t.Cleanup(func() {
		stop()
		s.Close()
		leases.Close()
	})
	grant := func(ttl int64) clientv3.LeaseID {
		t.Helper()
		l, err := c.Grant(ctx, ttl)
		if err != nil {
			t.Fatal(err)
		}
		return l.ID
	}
	put := func(key string, opts ...clientv3.OpOption) int64 {
		t.Helper()
		res, err := c.Put(ctx, key, "v", opts...)
		if err != nil {
			t.Fatal(err)
		}
		return res.Header.Revision
	}
	left := func(want ...clientv3.LeaseID) {
		t.Helper()
		res, err := c.Leases(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var got []clientv3.LeaseID
		for _, l := range res.Leases {
			got = append(got, l.ID)
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("there are the leases %v, want %v", got, want)
		}
	}
	idle, revoked, emptied, kept := grant(100), grant(200), grant(300), grant(400)
	put("emptied", clientv3.WithLease(emptied))
	put("kept", clientv3.WithLease(kept))
	if rev := put("emptied"); rev != 4 {
		t.Errorf("four leases and three puts have led to revision %d, want 4", rev)
	}
	for _, id := range []clientv3.LeaseID{revoked, emptied} {
		if _, err := c.Revoke(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		restart()
		left(idle, kept)
		for id, want := range map[clientv3.LeaseID]int64{idle: 100, kept: 400} {
			if ttl, err := c.TimeToLive(ctx, id, clientv3.WithAttachedKeys()); err != nil || ttl.GrantedTTL != want || (len(ttl.Keys) > 0) != (id == kept) {
				t.Errorf("after a restart lease %d is %+v, %v", id, ttl, err)
			}
		}
	}
	if rev := put("later", clientv3.WithLease(idle)); rev != 5 {
		t.Errorf("the next revision is %d, want 5", rev)
	}
	if _, err := c.Put(ctx, "x", "v", clientv3.WithLease(emptied)); err != rpctypes.ErrLeaseNotFound {
		t.Errorf("a lease that was revoked: %v", err)
	}
	if _, err := c.Revoke(ctx, kept); err != nil {
		t.Error(err)
	}
	restart()
	left(idle)
	if res, err := c.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithKeysOnly()); err != nil || res.Count != 2 {
		t.Errorf("%+v, %v; want emptied and later", res, err)
	}
	// A grant that could not be kept is none, and neither is a revocation.
	c.Close()
	stop()
	full := &brokenStore{Store: leases}
	endpoint, stop = etcdservetest.Serve(t, s, etcdserve.Options{Clock: clk, Leases: full})
	c = client(t, endpoint)
	left(idle)
	full.broken.Store(true)
	if l, err := c.Grant(ctx, 10); err == nil {
		t.Errorf("lease %d is granted, and could not be kept", l.ID)
	}
	if _, err := c.Revoke(ctx, idle); err == nil {
		t.Error("a lease is revoked, and would come back")
	}
	left(idle)
}
