package core

import (
	"container/heap"
	"context"
	"errors"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/internal/objectcache"
	"github.com/keelson/keelson/store"
)

// expire deletes what has outlived its kind's time to live, until ctx ends.
func (c *Core) expire(ctx context.Context) {
	select {
	case <-c.cache.Ready():
	case <-ctx.Done():
		return
	}
	done := make(chan struct{})
	n := 0
	for _, r := range c.resources {
		if r.Kind != nil && r.Version == nil && r.Kind.TTLSeconds != nil {
			n++
			go func() {
				defer func() { done <- struct{}{} }()
				c.expireKind(ctx, r.stored)
			}()
		}
	}
	for range n {
		<-done
	}
}

type mortal struct {
	at  time.Time
	key string
	rev int64
}

type mortals []mortal

func (m mortals) Len() int           { return len(m) }
func (m mortals) Less(i, j int) bool { return m[i].at.Before(m[j].at) }
func (m mortals) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }
func (m *mortals) Push(x any)        { *m = append(*m, x.(mortal)) }
func (m *mortals) Pop() any {
	old := *m
	x := old[len(old)-1]
	*m = old[:len(old)-1]
	return x
}

func (c *Core) expireKind(ctx context.Context, s *stored) {
	var queue mortals
	add := func(o *Object, written time.Time) {
		if ttl := s.kind.TTLSeconds(o.Object()); ttl > 0 {
			heap.Push(&queue, mortal{written.Add(time.Duration(ttl) * time.Second), o.Key(), o.Revision()})
		}
	}
	snap, cursor := s.cache.SnapshotAndCursor(true)
	snap.Ascend("", "", func(o *Object) bool {
		add(o, lastWritten(o.Object()))
		return true
	})
	timer := c.opts.Clock.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		events, _, wake, err := cursor.Poll(256)
		if err != nil {
			return
		}
		now := c.opts.Clock.Now()
		for _, e := range events {
			switch {
			case e.Deleted:
			case e.Prev == nil:
				add(e.Object, lastWritten(e.Object.Object()))
			default:
				add(e.Object, now)
			}
		}
		if len(events) > 0 && ctx.Err() == nil {
			continue
		}
		for len(queue) > 0 && !queue[0].at.After(now) && ctx.Err() == nil {
			m := heap.Pop(&queue).(mortal)
			// A later write has prolonged its life, and has its own entry.
			if o := s.cache.Get(m.key); o != nil && o.Revision() == m.rev {
				if _, err := c.cache.Delete(ctx, objectcache.Deletion{Resource: s.cache, Object: o}); err != nil && ctx.Err() == nil && !isLost(err) {
					c.opts.Logger.Error(err, "an object that has expired could not be deleted", "key", m.key)
				}
			}
		}
		next := time.Hour
		if len(queue) > 0 {
			next = max(queue[0].at.Sub(now), time.Millisecond)
		}
		timer.Reset(next)
		select {
		case <-wake:
		case <-timer.C():
		case <-ctx.Done():
			return
		}
	}
}

// lastWritten is when an object was last written, as far as it says.
func lastWritten(obj client.Object) time.Time {
	t := obj.GetCreationTimestamp().Time
	for _, m := range obj.GetManagedFields() {
		if m.Time != nil && m.Time.After(t) {
			t = m.Time.Time
		}
	}
	return t
}

func isLost(err error) bool {
	var lost *store.ConflictError
	return errors.As(err, &lost)
}
