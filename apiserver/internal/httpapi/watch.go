package httpapi

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/keelson/keelson/apiserver/internal/core"
	"github.com/keelson/keelson/apiserver/internal/objectcache"
)

// watchBatch is how many events are sent at one time at most.
const watchBatch = 128

func (h *Handler) watch(w *response, r *http.Request, x *exchange, t core.Target, q url.Values) error {
	a, err := negotiate(r, true)
	if err != nil {
		return err
	}
	if a.mediaType == mediaYAML {
		a.mediaType = mediaJSON // there is no framing of a stream of YAML
	}
	opts, err := listOptions(q, t.Name, true)
	if err != nil {
		return err
	}
	s := &stream{h: h, res: t.Resource, accepted: a, header: true}
	if a.convert.kind == asTable {
		if s.include, err = includePolicy(r); err != nil {
			return err
		}
	}
	timeout := opts.timeout
	if timeout <= 0 {
		timeout = time.Duration(float64(longest) * (1 + rand.Float64()))
	}
	ctx, cancel := h.streams.begin(r.Context())
	defer cancel()
	ctx, expire := context.WithTimeout(ctx, timeout)
	defer expire()
	cursor, err := h.opts.Core.Watch(ctx, t, opts.ListOptions)
	if err != nil {
		return err
	}
	defer cursor.Close()
	x.longRunning = true
	defer h.metrics.longRunning(x)()
	if websocket.IsWebSocketUpgrade(r) {
		return h.watchWebSocket(ctx, w, r, s, cursor)
	}
	contentType := mediaJSON
	if a.mediaType == mediaProto {
		contentType = mediaProto + ";stream=watch"
	}
	header := w.Header()
	header.Set("Content-Type", contentType)
	header.Set("Transfer-Encoding", "chunked")
	w.WriteHeader(http.StatusOK)
	w.Flush()
	send := func(frames []byte) error {
		if _, err := w.Write(frames); err != nil {
			return err
		}
		w.Flush()
		return nil
	}
	defer endWrites(ctx, w)()
	s.run(ctx, cursor, x, send)
	return nil
}

// stream encodes the events of one watch.
type stream struct {
	h        *Handler
	res      *core.Resource
	accepted accepted
	include  metav1.IncludeObjectPolicy
	header   bool // the next table describes its columns
	scratch  []byte
	single   bool // one frame a message, without delimiters
}

// run sends events until the context ends, the client is gone or the watch fails, which it reports in an ERROR event.
func (s *stream) run(ctx context.Context, cursor *core.Watch, x *exchange, send func([]byte) error) {
	events := make([]core.Event, 0, watchBatch)
	var buf []byte
	for {
		got, err := cursor.Next(ctx, events[:0])
		buf = buf[:0]
		for i := range got {
			var ferr error
			if buf, ferr = s.appendEvent(buf, got[i]); ferr != nil {
				s.h.logger.Error(ferr, "Encoding a watch event failed", "resource", s.res.GVR.String())
				err = ferr
				break
			}
			if s.single {
				if send(buf) != nil {
					return
				}
				buf = buf[:0]
			}
		}
		if len(buf) > 0 && send(buf) != nil {
			return
		}
		s.h.metrics.watchEvents(s.res, len(got))
		clear(got) // hold no object while waiting
		if err == nil {
			if cap(buf) > 1<<20 {
				buf = nil
			}
			continue
		}
		if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
			return
		}
		if frame, ferr := s.appendFrame(nil, string(watch.Error), objectcache.Transient(statusOf(err)), generic); ferr == nil {
			_ = send(frame) // the client may be gone
		}
		return
	}
}

func (s *stream) appendEvent(buf []byte, ev core.Event) ([]byte, error) {
	o, format := ev.Object, s.res
	if ev.Type == watch.Bookmark || o == nil {
		var err error
		if o, err = s.h.bookmark(s.res, ev); err != nil {
			return buf, err
		}
	}
	switch s.accepted.convert.kind {
	case asTable:
		t, err := s.h.table(s.res, s.accepted.convert.version, []*core.Object{o}, s.include, s.header)
		if err != nil {
			return buf, err
		}
		s.header = false
		t.ResourceVersion = o.Object().GetResourceVersion()
		o, format = objectcache.Transient(t), generic
	case asPartial, asPartialList:
		o, format = partialObject(o, s.accepted.convert.version), generic
	}
	return s.appendFrame(buf, string(ev.Type), o, format)
}

// appendFrame appends one event in the framing of the stream: a line of JSON, or a protobuf message behind its length.
func (s *stream) appendFrame(buf []byte, typ string, o *core.Object, format *core.Resource) ([]byte, error) {
	var err error
	if s.accepted.mediaType != mediaProto {
		buf = append(buf, `{"type":"`...)
		buf = append(buf, typ...)
		buf = append(buf, `","object":`...)
		if buf, err = o.Append(buf, format, mediaJSON); err != nil {
			return buf, err
		}
		return append(buf, '}', '\n'), nil
	}
	if s.scratch, err = o.Append(s.scratch[:0], format, mediaProto); err != nil {
		return buf, err
	}
	// metav1.WatchEvent{type = 1, object = 2 {raw = 1}}
	raw := 1 + uvarintLen(len(s.scratch)) + len(s.scratch)
	total := 2 + len(typ) + 1 + uvarintLen(raw) + raw
	if !s.single {
		buf = binary.BigEndian.AppendUint32(buf, uint32(total))
	}
	buf = append(buf, 0x0a, byte(len(typ)))
	buf = append(buf, typ...)
	buf = append(buf, 0x12)
	buf = binary.AppendUvarint(buf, uint64(raw))
	buf = append(buf, 0x0a)
	buf = binary.AppendUvarint(buf, uint64(len(s.scratch)))
	buf = append(buf, s.scratch...)
	if cap(s.scratch) > 1<<20 {
		s.scratch = nil
	}
	return buf, nil
}

func uvarintLen(n int) int {
	l := 1
	for v := uint64(n); v >= 0x80; v >>= 7 {
		l++
	}
	return l
}

// watchWebSocket sends one event a message.
func (h *Handler) watchWebSocket(ctx context.Context, w *response, r *http.Request, s *stream, cursor *core.Watch) error {
	up := websocket.Upgrader{
		// Browsers send their cookies to anybody; this server takes none.
		CheckOrigin: func(*http.Request) bool { return true },
		Error: func(w http.ResponseWriter, r *http.Request, code int, reason error) {
			http.Error(w, reason.Error(), code)
		},
	}
	conn, err := up.Upgrade(w, r, nil)
	if err != nil {
		return nil // Upgrade has answered
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		for {
			if _, _, err := conn.NextReader(); err != nil {
				return
			}
		}
	}()
	kind := websocket.TextMessage
	if s.accepted.mediaType == mediaProto {
		kind = websocket.BinaryMessage
	}
	s.single = true
	s.run(ctx, cursor, &exchange{}, func(b []byte) error { return conn.WriteMessage(kind, b) })
	_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
	conn.Close()
	<-done
	return nil
}
