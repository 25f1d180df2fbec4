package httpapi

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/keelson/keelson/apiserver/internal/core"
	"github.com/keelson/keelson/apiserver/internal/objectcache"
)

// compressAbove is the size from which answers are compressed for clients elsewhere that take it.
const compressAbove = 128 << 10

// generic encodes objects that say themselves what they are: Status, Table, answers of virtual resources.
var generic = &core.Resource{}

// writeRuntime sends an object that is not kept.
func (h *Handler) writeRuntime(w http.ResponseWriter, r *http.Request, code int, a accepted, obj runtime.Object) {
	h.writeEncoded(w, r, code, a, objectcache.Transient(obj), generic)
}

// writeEncoded sends what an object keeps.
func (h *Handler) writeEncoded(w http.ResponseWriter, r *http.Request, code int, a accepted, o *core.Object, f *core.Resource) {
	media := mediaJSON
	if a.mediaType == mediaProto {
		if _, ok := o.Runtime().(protoMarshaler); ok {
			media = mediaProto
		} else {
			a.mediaType = mediaJSON
		}
	}
	body, err := o.Encoded(f, media)
	if err != nil {
		h.logger.Error(err, "Encoding an answer failed", "path", r.URL.Path)
		http.Error(w, "encoding the answer failed", http.StatusInternalServerError)
		return
	}
	h.writeBody(w, r, code, a, body)
}

type protoMarshaler interface{ Marshal() ([]byte, error) }

// writeBody sends JSON (converted or indented as accepted) or protobuf.
func (h *Handler) writeBody(w http.ResponseWriter, r *http.Request, code int, a accepted, body []byte) {
	newline := false
	switch {
	case a.mediaType == mediaYAML:
		if y, err := yaml.JSONToYAML(body); err == nil {
			body = y
		}
	case a.mediaType == mediaJSON && a.pretty:
		var b bytes.Buffer
		if json.Indent(&b, body, "", "  ") == nil {
			body = b.Bytes()
		}
		newline = true
	case a.mediaType == mediaJSON:
		newline = true
	}
	header := w.Header()
	header.Set("Content-Type", a.mediaType)
	if len(body) > compressAbove && takesGzip(r) {
		header.Set("Content-Encoding", "gzip")
		header.Set("Vary", "Accept-Encoding")
		w.WriteHeader(code)
		if r.Method == http.MethodHead {
			return
		}
		z := h.gzip(w)
		_, _ = z.Write(body)
		if newline {
			_, _ = z.Write(newlineBytes)
		}
		h.closeGzip(z)
		return
	}
	n := len(body)
	if newline {
		n++
	}
	header.Set("Content-Length", strconv.Itoa(n))
	w.WriteHeader(code)
	if r.Method == http.MethodHead {
		return
	}
	_, _ = w.Write(body)
	if newline {
		_, _ = w.Write(newlineBytes)
	}
}

var newlineBytes = []byte{'\n'}

// takesGzip reports whether compression is asked for and worth it. Go's clients always ask; within one machine it only
// costs both sides time.
func takesGzip(r *http.Request) bool {
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		return false
	}
	if r.RemoteAddr == inMemory {
		return false
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return true
	}
	ip := net.ParseIP(host)
	return ip == nil || !ip.IsLoopback()
}

func (h *Handler) gzip(w http.ResponseWriter) *gzip.Writer {
	z := h.gzips.Get().(*gzip.Writer)
	z.Reset(w)
	return z
}

func (h *Handler) closeGzip(z *gzip.Writer) {
	z.Close() // an error is the connection's, which net/http sees too
	z.Reset(nil)
	h.gzips.Put(z)
}

func listMeta(l *core.List) metav1.ListMeta {
	return metav1.ListMeta{
		ResourceVersion: strconv.FormatInt(l.Revision, 10), Continue: l.Continue, RemainingItemCount: l.RemainingItemCount,
	}
}

// writeList sends the concatenation of the objects' encodings.
func (h *Handler) writeList(w http.ResponseWriter, r *http.Request, a accepted, res *core.Resource, l *core.List) {
	var err error
	switch {
	case a.mediaType == mediaProto && res.Kind != nil:
		err = h.writeListProto(w, r, res, l)
	case a.mediaType == mediaYAML || a.pretty:
		var body []byte
		if body, err = appendListJSON(nil, res, l, nil); err == nil {
			h.writeBody(w, r, http.StatusOK, a, body)
		}
	default:
		err = h.writeListJSON(w, r, res, l)
	}
	if err != nil {
		h.sendError(w, r, err)
	}
}

// flushAt is the size from which parts of a list are written.
const flushAt = 64 << 10

func appendListJSON(buf []byte, res *core.Resource, l *core.List, flush func([]byte) []byte) ([]byte, error) {
	gvk := res.ListGVK()
	meta, err := json.Marshal(listMeta(l))
	if err != nil {
		return nil, err
	}
	buf = append(buf, `{"kind":"`...)
	buf = append(buf, gvk.Kind...)
	buf = append(buf, `","apiVersion":"`...)
	buf = append(buf, gvk.GroupVersion().String()...)
	buf = append(buf, `","metadata":`...)
	buf = append(buf, meta...)
	buf = append(buf, `,"items":[`...)
	for i, o := range l.Items {
		if i > 0 {
			buf = append(buf, ',')
		}
		if buf, err = o.AppendItem(buf, res, mediaJSON); err != nil {
			return nil, err
		}
		if flush != nil && len(buf) >= flushAt {
			buf = flush(buf)
		}
	}
	return append(buf, ']', '}'), nil
}

func (h *Handler) writeListJSON(w http.ResponseWriter, r *http.Request, res *core.Resource, l *core.List) error {
	buf := h.buffers.Get().(*[]byte)
	defer h.buffers.Put(buf)
	header := w.Header()
	header.Set("Content-Type", mediaJSON)
	started := false
	var z *gzip.Writer
	write := func(b []byte) []byte {
		if !started {
			started = true
			if takesGzip(r) {
				header.Set("Content-Encoding", "gzip")
				header.Set("Vary", "Accept-Encoding")
				z = h.gzip(w)
			}
			w.WriteHeader(http.StatusOK)
		}
		switch {
		case r.Method == http.MethodHead:
		case z != nil:
			_, _ = z.Write(b)
		default:
			_, _ = w.Write(b)
		}
		return b[:0]
	}
	b, err := appendListJSON((*buf)[:0], res, l, write)
	if err != nil {
		if started {
			// Too late for another answer: cutting the connection tells the client that this is not all.
			panic(http.ErrAbortHandler)
		}
		return err
	}
	b = append(b, '\n')
	if !started {
		header.Set("Content-Length", strconv.Itoa(len(b)))
		w.WriteHeader(http.StatusOK)
		if r.Method != http.MethodHead {
			_, _ = w.Write(b)
		}
	} else {
		write(b)
		if z != nil {
			h.closeGzip(z)
		}
	}
	if cap(b) <= 2*flushAt {
		*buf = b[:0]
	}
	return nil
}

func (h *Handler) writeListProto(w http.ResponseWriter, r *http.Request, res *core.Resource, l *core.List) error {
	lm := listMeta(l)
	meta, err := lm.Marshal()
	if err != nil {
		return err
	}
	size := len(meta) + 16
	for _, o := range l.Items {
		size += o.Size()
	}
	gvk := res.ListGVK()
	head := generic.Envelope(&runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind}})
	head = append(append([]byte(nil), head...), 0x12)

	bufp := h.large.Get().(*[]byte)
	defer h.large.Put(bufp)
	raw := (*bufp)[:0]
	if cap(raw) < size {
		raw = make([]byte, 0, size)
	}
	raw = append(raw, 0x0a)
	raw = binary.AppendUvarint(raw, uint64(len(meta)))
	raw = append(raw, meta...)
	for _, o := range l.Items {
		if raw, err = o.AppendItem(raw, res, mediaProto); err != nil {
			return err
		}
	}
	*bufp = raw[:0]
	head = binary.AppendUvarint(head, uint64(len(raw)))
	tail := []byte{0x1a, 0x00, 0x22, 0x00}
	total := len(head) + len(raw) + len(tail)

	header := w.Header()
	header.Set("Content-Type", mediaProto)
	if total > compressAbove && takesGzip(r) {
		header.Set("Content-Encoding", "gzip")
		header.Set("Vary", "Accept-Encoding")
		w.WriteHeader(http.StatusOK)
		if r.Method == http.MethodHead {
			return nil
		}
		z := h.gzip(w)
		_, _ = z.Write(head)
		_, _ = z.Write(raw)
		_, _ = z.Write(tail)
		h.closeGzip(z)
		return nil
	}
	header.Set("Content-Length", strconv.Itoa(total))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	_, _ = w.Write(head)
	_, _ = w.Write(raw)
	_, _ = w.Write(tail)
	return nil
}
