package validate

import (
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// NonNegative refuses numbers below zero.
func (e *Errors) NonNegative(value int64, p *field.Path) {
	if value < 0 {
		e.List = append(e.List, field.Invalid(p, value, NotNegative).WithOrigin("minimum"))
	}
}

// NonNegativeQuantity refuses quantities below zero.
func (e *Errors) NonNegativeQuantity(q resource.Quantity, p *field.Path) {
	if q.Sign() < 0 {
		e.Invalid(p, q.String(), NotNegative)
	}
}

// PositiveQuantity refuses quantities that are not above zero.
func (e *Errors) PositiveQuantity(q resource.Quantity, p *field.Path) {
	if q.Sign() <= 0 {
		e.Invalid(p, q.String(), NotPositive)
	}
}

// DNSLabel checks an RFC 1123 label.
func (e *Errors) DNSLabel(value string, p *field.Path) {
	e.InvalidEach(p, value, validation.IsDNS1123Label(value))
}

// DNSSubdomain checks an RFC 1123 subdomain.
func (e *Errors) DNSSubdomain(value string, p *field.Path) {
	e.InvalidEach(p, value, validation.IsDNS1123Subdomain(value))
}

// QualifiedName checks a name of the form [prefix/]name.
func (e *Errors) QualifiedName(value string, p *field.Path) {
	e.InvalidEach(p, value, validation.IsQualifiedName(value))
}

// Name checks a reference to an object by one of apimachinery's name functions.
func (e *Errors) Name(value string, check apivalidation.ValidateNameFunc, p *field.Path) {
	e.InvalidEach(p, value, check(value, false))
}

// Immutable refuses a change.
func (e *Errors) Immutable(value, old any, p *field.Path) {
	if !equality.Semantic.DeepEqual(old, value) {
		e.List = append(e.List, field.Invalid(p, value, ImmutableText).WithOrigin("immutable"))
	}
}

// PortNumber checks that a port is in 1..65535.
func (e *Errors) PortNumber(port int32, p *field.Path) {
	e.InvalidEach(p, port, validation.IsValidPortNum(int(port)))
}

// PortNumberOrName checks a port given either way.
func (e *Errors) PortNumberOrName(port intstr.IntOrString, p *field.Path) {
	switch port.Type {
	case intstr.Int:
		e.InvalidEach(p, port.IntValue(), validation.IsValidPortNum(port.IntValue()))
	case intstr.String:
		e.InvalidEach(p, port.StrVal, validation.IsValidPortName(port.StrVal))
	default:
		e.Invalid(p, port, "unknown type: "+port.String())
	}
}

// Required refuses an empty text.
func (e *Errors) RequireText(value string, p *field.Path) {
	if value == "" {
		e.Required(p, "")
	}
}

// LocalDescendingPath refuses absolute paths and those with a step back.
func (e *Errors) LocalDescendingPath(value string, p *field.Path) {
	if path.IsAbs(value) {
		e.Invalid(p, value, "must be a relative path")
	}
	e.NoBackstep(value, p)
}

// NoBackstep refuses paths with an element "..".
func (e *Errors) NoBackstep(value string, p *field.Path) {
	for _, part := range strings.Split(value, "/") {
		if part == ".." {
			e.Invalid(p, value, "must not contain '..'")
			return
		}
	}
}

// LocalNonReservedPath checks the path of a file in a volume that the node writes: descending, and not beginning
// with "..", which the node uses for itself.
func (e *Errors) LocalNonReservedPath(value string, p *field.Path) {
	e.LocalDescendingPath(value, p)
	// An element ".." is told by the check above.
	if strings.HasPrefix(value, "..") && !strings.HasPrefix(value, "../") {
		e.Invalid(p, value, "must not start with '..'")
	}
}

// Mode checks permission bits.
func (e *Errors) Mode(mode *int32, p *field.Path) {
	if mode != nil && (*mode < 0 || *mode > 0o777) {
		e.Invalid(p, *mode, FileMode)
	}
}

// OrdinaryIP refuses addresses that stand for no single host of a network. loopback lets those of the host itself pass.
func OrdinaryIP(e *Errors, value string, loopback bool, p *field.Path) {
	ip := netutils.ParseIPSloppy(value)
	if ip == nil {
		e.Invalid(p, value, "must be a valid IP address")
		return
	}
	if ip.IsUnspecified() {
		e.Invalid(p, value, "may not be unspecified ("+ip.String()+")")
	}
	if ip.IsLoopback() && !loopback {
		e.Invalid(p, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
	}
	if ip.IsLinkLocalUnicast() {
		e.Invalid(p, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
	}
	if ip.IsLinkLocalMulticast() {
		e.Invalid(p, value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
	}
}
