package sim

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/scheduler"
)

// eventLog writes one line for each thing that happens; a nil one writes nothing. Errors come with Flush.
type eventLog struct {
	out  *bufio.Writer
	sim  *Simulation
	line []byte
}

func (l *eventLog) begin(what string) {
	b := l.line[:0]
	us := l.sim.now.Microseconds()
	b = strconv.AppendInt(b, us/1e6, 10)
	b = append(b, '.')
	frac := us % 1e6
	for unit := int64(1e5); unit > 0; unit /= 10 {
		b = append(b, byte('0'+frac/unit%10))
	}
	b = append(b, ' ')
	l.line = append(b, what...)
}

func (l *eventLog) str(prefix, s string) {
	l.line = append(append(l.line, prefix...), s...)
}

func (l *eventLog) num(prefix string, n int64) {
	l.line = strconv.AppendInt(append(l.line, prefix...), n, 10)
}

func (l *eventLog) done() {
	l.line = append(l.line, '\n')
	_, _ = l.out.Write(l.line) // bufio keeps the error for Flush
}

func (l *eventLog) pod(what string, p *pod) { l.podBecause(what, p, "") }

func (l *eventLog) podBecause(what string, p *pod, why string) {
	if l == nil {
		return
	}
	l.begin(what)
	l.str(" ", p.key)
	if p.node != nil {
		l.str(" node=", p.node.obj.Name)
	}
	if why != "" {
		l.str(" why=", why)
	}
	l.done()
}

func (l *eventLog) placed(p *pod, d *scheduler.Decision, attempt int) {
	if l == nil {
		return
	}
	l.begin("bind ")
	l.str("", p.key)
	l.str(" node=", d.Node)
	l.num(" score=", d.Score)
	l.num(" feasible=", int64(d.Feasible))
	l.num(" attempt=", int64(attempt))
	l.done()
}

func (l *eventLog) preempted(victim, by *pod) {
	if l == nil {
		return
	}
	l.begin("preempt ")
	l.str("", victim.key)
	l.str(" node=", victim.node.obj.Name)
	l.str(" by=", by.key)
	l.done()
}

// waits logs why a pod waits, if that isn't what was logged of it last.
func (l *eventLog) waits(p *pod, d *scheduler.Decision) {
	if l == nil {
		return
	}
	m := d.Message()
	if m == p.message {
		return
	}
	p.message = m
	l.begin("wait ")
	l.str("", p.key)
	l.str(": ", m)
	l.done()
}

func (l *eventLog) node(k EventKind, n *node) {
	if l == nil {
		return
	}
	l.begin(k.String())
	l.str(" ", n.obj.Name)
	l.done()
}

func (l *eventLog) object(k EventKind, o client.Object) {
	if l == nil {
		return
	}
	l.begin(k.String())
	l.str(" ", fmt.Sprintf("%T", o)[len("*v1."):])
	l.str(" ", strings.TrimPrefix(keyOf(o), "/"))
	l.done()
}

func (l *eventLog) bound(claim *corev1.PersistentVolumeClaim) {
	if l == nil {
		return
	}
	l.begin("claim ")
	l.str("", keyOf(claim))
	l.str(" volume=", claim.Spec.VolumeName)
	l.done()
}
