package etcdserve

import (
	"context"
	"errors"
	"io"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/keelson/keelson/store"
)

type watchServer struct {
	pb.UnimplementedWatchServer
	s *Server
}

// watchStream is one client's stream of watches.
type watchStream struct {
	s      *Server
	stream pb.Watch_WatchServer
	wg     sync.WaitGroup

	sendMu sync.Mutex

	mu      sync.Mutex
	watches map[int64]*watch
	nextID  int64
	wanted  int64 // progress that the client has asked for, 0 for none
}

type watch struct {
	id       int64
	r        interval
	start    int64
	prev     bool
	noPrev   int64 // the revision whose events have no previous values, 0 for none
	fragment bool
	noPut    bool
	noDelete bool
	w        store.Watcher
	ctx      context.Context
	cancel   context.CancelFunc
	reported int64 // everything up to here has been sent
}

func (w *watchServer) Watch(stream pb.Watch_WatchServer) error {
	ws := &watchStream{s: w.s, stream: stream, watches: map[int64]*watch{}}
	defer ws.close()
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch r := r.RequestUnion.(type) {
		case *pb.WatchRequest_CreateRequest:
			err = ws.create(r.CreateRequest)
		case *pb.WatchRequest_CancelRequest:
			err = ws.cancel(r.CancelRequest.WatchId)
		case *pb.WatchRequest_ProgressRequest:
			err = ws.progress()
		}
		if err != nil {
			return err
		}
	}
}

func (ws *watchStream) close() {
	ws.mu.Lock()
	for _, w := range ws.watches {
		w.cancel()
	}
	ws.mu.Unlock()
	ws.wg.Wait()
}

func (ws *watchStream) send(r *pb.WatchResponse) error {
	ws.sendMu.Lock()
	defer ws.sendMu.Unlock()
	return ws.stream.Send(r)
}

func (ws *watchStream) create(r *pb.WatchCreateRequest) error {
	ctx := ws.stream.Context()
	current, oldest, err := ws.s.bounds(ctx)
	if err != nil {
		return grpcError(err)
	}
	refuse := func(id int64, reason string) error {
		return ws.send(&pb.WatchResponse{Header: ws.s.header(current), WatchId: id, Created: true, Canceled: true, CancelReason: reason})
	}
	if r.StartRevision < 0 {
		return refuse(-1, rpctypes.ErrCompacted.Error())
	}
	if len(r.Key) == 0 {
		r.Key = []byte{0} // etcd's clients say so of everything
		if len(r.RangeEnd) == 0 {
			r.RangeEnd = []byte{0}
		}
	}
	w := &watch{r: newInterval(r.Key, r.RangeEnd), start: r.StartRevision, prev: r.PrevKv, fragment: r.Fragment}
	if !w.r.single() && w.r.end != "\x00" && w.r.key >= w.r.end {
		return refuse(-1, rpctypes.ErrGRPCEmptyKey.Error())
	}
	for _, f := range r.Filters {
		w.noPut = w.noPut || f == pb.WatchCreateRequest_NOPUT
		w.noDelete = w.noDelete || f == pb.WatchCreateRequest_NODELETE
	}
	ws.mu.Lock()
	switch {
	case r.WatchId != 0 && ws.watches[r.WatchId] != nil:
		ws.mu.Unlock()
		return refuse(-1, "mvcc: duplicate watch ID provided on the WatchStream")
	case r.WatchId != 0:
		w.id = r.WatchId
	default:
		for ws.watches[ws.nextID] != nil {
			ws.nextID++
		}
		w.id = ws.nextID
		ws.nextID++
	}
	ws.mu.Unlock()
	header := ws.s.header(current)
	compacted := w.start > 0 && w.start <= current && w.start < oldest
	var sw store.Watcher
	if !compacted {
		after := current
		if w.start > 0 {
			after = min(after, w.start-1)
		}
		// The store's watch begins before the client is told that there is one, so that what is
		// committed after it was told is in it.
		sw, err = ws.s.s.Watch(ctx, store.WatchOptions{After: max(1, after)})
		compacted = errors.Is(err, store.ErrCompacted)
		if err != nil && !compacted {
			return grpcError(err)
		}
		if w.start == oldest {
			w.noPrev = oldest
		}
	}
	if compacted {
		if err := ws.send(&pb.WatchResponse{Header: header, WatchId: w.id, Created: true}); err != nil {
			return err
		}
		return ws.sendCompacted(w.id)
	}
	w.w = sw
	w.ctx, w.cancel = context.WithCancel(ctx)
	if err := ws.send(&pb.WatchResponse{Header: header, WatchId: w.id, Created: true}); err != nil {
		sw.Close()
		w.cancel()
		return err
	}
	ws.mu.Lock()
	ws.watches[w.id] = w
	ws.mu.Unlock()
	ws.wg.Go(func() { ws.follow(w) })
	if r.ProgressNotify {
		ws.wg.Go(func() { ws.notify(w) })
	}
	return nil
}

// sendCompacted tells that a watch is too late, and where one can begin.
func (ws *watchStream) sendCompacted(id int64) error {
	current, oldest, err := ws.s.bounds(ws.stream.Context())
	if err != nil {
		return grpcError(err)
	}
	return ws.send(&pb.WatchResponse{
		Header: ws.s.header(current), WatchId: id, Canceled: true, CompactRevision: oldest,
		CancelReason: rpctypes.ErrGRPCCompacted.Error(),
	})
}

func (ws *watchStream) remove(w *watch) (found bool) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.watches[w.id] != w {
		return false
	}
	delete(ws.watches, w.id)
	w.cancel()
	return true
}

func (ws *watchStream) cancel(id int64) error {
	ws.mu.Lock()
	w := ws.watches[id]
	ws.mu.Unlock()
	if w == nil || !ws.remove(w) {
		return nil
	}
	h, err := ws.s.now(ws.stream.Context())
	if err != nil {
		return err
	}
	return ws.send(&pb.WatchResponse{Header: h, WatchId: id, Canceled: true})
}

// progress answers when everything that happened before has been sent on the stream.
func (ws *watchStream) progress() error {
	ctx := ws.stream.Context()
	rev, _, err := ws.s.s.Revision(ctx) // which makes the store's watchers report it
	if err != nil {
		return grpcError(err)
	}
	ws.mu.Lock()
	ws.wanted = max(ws.wanted, rev)
	ws.mu.Unlock()
	return ws.reached()
}

// reached sends the progress that the client waits for if all watches have come to it.
func (ws *watchStream) reached() error {
	// Nothing may be sent between looking and sending, or the order would be lost.
	ws.sendMu.Lock()
	defer ws.sendMu.Unlock()
	ws.mu.Lock()
	rev := ws.wanted
	for _, w := range ws.watches {
		if w.reported < rev {
			rev = 0
		}
	}
	if rev > 0 {
		ws.wanted = 0
	}
	ws.mu.Unlock()
	if rev == 0 {
		return nil
	}
	return ws.stream.Send(&pb.WatchResponse{Header: ws.s.header(rev), WatchId: -1})
}

// notify tells of progress now and then.
func (ws *watchStream) notify(w *watch) {
	ticker := ws.s.opts.Clock.NewTicker(ws.s.opts.ProgressInterval)
	defer ticker.Stop()
	last := int64(0)
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-ticker.C():
		}
		if _, _, err := ws.s.s.Revision(w.ctx); err != nil {
			continue
		}
		ws.sendMu.Lock()
		ws.mu.Lock()
		rev := w.reported
		ws.mu.Unlock()
		if rev > 0 && rev != last && w.ctx.Err() == nil {
			last = rev
			if ws.stream.Send(&pb.WatchResponse{Header: ws.s.header(rev), WatchId: w.id}) != nil {
				w.cancel()
			}
		}
		ws.sendMu.Unlock()
	}
}

// follow sends the events of a watch until it is cancelled.
func (ws *watchStream) follow(w *watch) {
	defer w.w.Close()
	for {
		b, err := w.w.Next(w.ctx)
		switch {
		case err == nil:
		case errors.Is(err, store.ErrCompacted):
			if ws.remove(w) {
				_ = ws.sendCompacted(w.id)
			}
			_ = ws.reached()
			return
		default:
			if w.ctx.Err() == nil && ws.remove(w) {
				_ = ws.send(&pb.WatchResponse{Header: ws.s.header(0), WatchId: w.id, Canceled: true, CancelReason: grpcError(err).Error()})
			}
			_ = ws.reached()
			return
		}
		events, err := w.events(b.Events)
		if err != nil {
			if ws.remove(w) {
				_ = ws.send(&pb.WatchResponse{Header: ws.s.header(0), WatchId: w.id, Canceled: true, CancelReason: err.Error()})
			}
			_ = ws.reached()
			return
		}
		if ws.sendEvents(w, events, b.Revision) != nil || ws.reached() != nil {
			ws.remove(w)
			return
		}
	}
}

// sendEvents sends a batch, in pieces if the client can put them together.
func (ws *watchStream) sendEvents(w *watch, events []*mvccpb.Event, rev int64) error {
	ws.sendMu.Lock()
	defer ws.sendMu.Unlock()
	if w.ctx.Err() != nil {
		return nil
	}
	for len(events) > 0 {
		n := len(events)
		if w.fragment {
			size := 0
			for n = 0; n < len(events) && (n == 0 || size < ws.s.opts.MaxRequestBytes); n++ {
				size += proto.Size(events[n])
			}
		}
		res := &pb.WatchResponse{Header: ws.s.header(rev), WatchId: w.id, Events: events[:n], Fragment: n < len(events)}
		if err := ws.stream.Send(res); err != nil {
			return err
		}
		events = events[n:]
	}
	ws.mu.Lock()
	w.reported = rev
	ws.mu.Unlock()
	return nil
}
