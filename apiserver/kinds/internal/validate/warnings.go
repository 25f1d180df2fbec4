package validate

import (
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// IPWarnings returns what is unusual about an address; nothing if it is none, which is for validation to say.
func IPWarnings(p *field.Path, value string) []string {
	if netutils.ParseIPSloppy(value) == nil {
		return nil
	}
	return validation.GetWarningsForIP(p, value)
}

// CIDRWarnings returns what is unusual about a range; nothing if it is none.
func CIDRWarnings(p *field.Path, value string) []string {
	if _, _, err := netutils.ParseCIDRSloppy(value); err != nil {
		return nil
	}
	return validation.GetWarningsForCIDR(p, value)
}
