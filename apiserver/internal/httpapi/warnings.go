package httpapi

import (
	"context"
	"net/http"
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

// warnings writes each warning once into the header of the answer, while that is not sent.
type warnings struct {
	mu     sync.Mutex
	w      *response
	header http.Header
	seen   map[string]bool
	length int
}

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
	if len(text) > maxWarningLength {
		n := maxWarningLength
		for n > 0 && !utf8.RuneStart(text[n]) {
			n--
		}
		text = text[:n] + "…"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen[text] || r.w.wrote || r.length+len(text) > maxWarningsTotal {
		return
	}
	if r.seen == nil {
		r.seen = map[string]bool{}
	}
	r.seen[text] = true
	value, err := utilnet.NewWarningHeader(299, agent, text)
	if err != nil {
		return // text that no header can carry
	}
	r.length += len(text)
	r.header.Add("Warning", value)
}
