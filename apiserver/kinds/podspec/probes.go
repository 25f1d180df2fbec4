package podspec

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

// handler is a lifecycle hook's or a probe's action: exactly one of its parts.
type handler struct {
	exec      *corev1.ExecAction
	httpGet   *corev1.HTTPGetAction
	tcpSocket *corev1.TCPSocketAction
	grpc      *corev1.GRPCAction
	sleep     *corev1.SleepAction
}

func (c *check) handler(h handler, p *field.Path) {
	given := false
	part := func(set bool, name string, check func(*field.Path)) {
		if !set {
			return
		}
		if given {
			c.Forbidden(p.Child(name), "may not specify more than 1 handler type")
			return
		}
		given = true
		check(p.Child(name))
	}
	part(h.exec != nil, "exec", func(p *field.Path) {
		if len(h.exec.Command) == 0 {
			c.Required(p.Child("command"), "")
		}
	})
	part(h.httpGet != nil, "httpGet", func(p *field.Path) {
		c.RequireText(h.httpGet.Path, p.Child("path"))
		c.PortNumberOrName(h.httpGet.Port, p.Child("port"))
		validate.OneOfOrEmptyRefused(&c.Errors, p.Child("scheme"), h.httpGet.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)
		for _, header := range h.httpGet.HTTPHeaders {
			c.InvalidEach(p.Child("httpHeaders"), header.Name, validation.IsHTTPHeaderName(header.Name))
		}
	})
	part(h.tcpSocket != nil, "tcpSocket", func(p *field.Path) { c.PortNumberOrName(h.tcpSocket.Port, p.Child("port")) })
	part(h.grpc != nil, "grpc", func(p *field.Path) { c.PortNumberOrName(intstr.FromInt32(h.grpc.Port), p.Child("port")) })
	part(h.sleep != nil, "sleep", func(p *field.Path) {
		if grace := c.spec.TerminationGracePeriodSeconds; grace != nil && (h.sleep.Seconds < 0 || h.sleep.Seconds > *grace) {
			c.Invalid(p, h.sleep.Seconds, fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", *grace))
		}
	})
	if !given {
		c.Required(p, "must specify a handler type")
	}
}

func (c *check) lifecycle(l *corev1.Lifecycle, p *field.Path) {
	if l == nil {
		return
	}
	hook := func(h *corev1.LifecycleHandler, p *field.Path) {
		if h != nil {
			c.handler(handler{exec: h.Exec, httpGet: h.HTTPGet, tcpSocket: h.TCPSocket, sleep: h.Sleep}, p)
		}
	}
	hook(l.PostStart, p.Child("postStart"))
	hook(l.PreStop, p.Child("preStop"))
}

func (c *check) probes(ctr *corev1.Container, p *field.Path) {
	once := func(probe *corev1.Probe, p *field.Path) {
		c.probe(probe, p)
		if probe != nil && probe.SuccessThreshold != 1 {
			c.Invalid(p.Child("successThreshold"), probe.SuccessThreshold, "must be 1")
		}
	}
	once(ctr.LivenessProbe, p.Child("livenessProbe"))
	readiness := p.Child("readinessProbe")
	c.probe(ctr.ReadinessProbe, readiness)
	if ctr.ReadinessProbe != nil && ctr.ReadinessProbe.TerminationGracePeriodSeconds != nil {
		c.Invalid(readiness.Child("terminationGracePeriodSeconds"), ctr.ReadinessProbe.TerminationGracePeriodSeconds, "must not be set for readinessProbes")
	}
	once(ctr.StartupProbe, p.Child("startupProbe"))
}

func (c *check) probe(probe *corev1.Probe, p *field.Path) {
	if probe == nil {
		return
	}
	c.handler(handler{exec: probe.Exec, httpGet: probe.HTTPGet, tcpSocket: probe.TCPSocket, grpc: probe.GRPC}, p)
	c.NonNegative(int64(probe.InitialDelaySeconds), p.Child("initialDelaySeconds"))
	c.NonNegative(int64(probe.TimeoutSeconds), p.Child("timeoutSeconds"))
	c.NonNegative(int64(probe.PeriodSeconds), p.Child("periodSeconds"))
	c.NonNegative(int64(probe.SuccessThreshold), p.Child("successThreshold"))
	c.NonNegative(int64(probe.FailureThreshold), p.Child("failureThreshold"))
	if grace := probe.TerminationGracePeriodSeconds; grace != nil && *grace <= 0 {
		c.Invalid(p.Child("terminationGracePeriodSeconds"), *grace, "must be greater than 0")
	}
}
