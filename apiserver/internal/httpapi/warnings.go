package httpapi

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"unicode/utf8"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/warning"
)

// Bounds of Kubernetes on what warnings add to an answer's header.
const (
	maxWarningLength = 256
	maxWarningsTotal = 4 << 10
)

// warnings writes each warning once into the header of the answer, while that is not sent. When there are more than an answer may
// carry, all of them are cut short.
type warnings struct {
	mu     sync.Mutex
	w      *response
	header http.Header
	seen   []warningText
	short  bool
	length int
}

type warningText struct{ agent, text string }

func withWarnings(ctx context.Context, header http.Header, w *response) context.Context {
	return warning.WithWarningRecorder(ctx, &warnings{w: w, header: header})
}

// AddWarning implements warning.Recorder.
func (r *warnings) AddWarning(agent, text string) {
	if text == "" {
		return
	}
	if agent == "" {
		agent = "-"
	}
	t := warningText{agent, text}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.w.wrote || r.short && r.length >= maxWarningsTotal || slices.Contains(r.seen, t) {
		return
	}
	r.seen = append(r.seen, t)
	if !r.short && r.length+utf8.RuneCountInString(text) > maxWarningsTotal {
		r.short, r.length = true, 0
		r.header.Del("Warning")
		for _, t := range r.seen {
			r.write(t)
		}
		return
	}
	r.write(t)
}

func (r *warnings) write(t warningText) {
	if n := utf8.RuneCountInString(t.text); r.short && n > maxWarningLength {
		t.text = string([]rune(t.text)[:maxWarningLength])
	}
	value, err := utilnet.NewWarningHeader(299, t.agent, t.text)
	if err != nil {
		return // text that no header can carry
	}
	r.length += utf8.RuneCountInString(t.text)
	r.header.Add("Warning", value)
}
