package criconfig

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ParseResolvConf reads a resolv.conf.
func ParseResolvConf(r io.Reader) (*runtimeapi.DNSConfig, error) {
	out := &runtimeapi.DNSConfig{}
	s := bufio.NewScanner(r)
	for s.Scan() {
		line := s.Text()
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if len(f) > 1 {
				out.Servers = append(out.Servers, f[1])
			}
		case "search":
			out.Searches = nil
			for _, d := range f[1:] {
				if d != "." {
					d = strings.TrimSuffix(d, ".")
				}
				out.Searches = append(out.Searches, d)
			}
		case "options":
			out.Options = append(out.Options, f[1:]...)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("resolv.conf: %w", err)
	}
	return out, nil
}

// Limits of what goes into a pod's resolv.conf.
const (
	maxServers      = 3
	maxSearches     = 32
	maxSearchLength = 2048
)

// DNS is a pod's name resolution. dropped says what did not fit.
func DNS(pod *corev1.Pod, host *runtimeapi.DNSConfig, servers []string, clusterDomain string) (config *runtimeapi.DNSConfig, dropped string) {
	policy := pod.Spec.DNSPolicy
	if policy == "" {
		policy = corev1.DNSClusterFirst
	}
	if policy == corev1.DNSClusterFirst && pod.Spec.HostNetwork {
		policy = corev1.DNSDefault
	}
	out := &runtimeapi.DNSConfig{}
	switch policy {
	case corev1.DNSNone:
	case corev1.DNSDefault:
		out = clone(host)
	default:
		if len(servers) == 0 {
			out = clone(host)
			break
		}
		out.Servers = append(out.Servers, servers...)
		if clusterDomain != "" {
			out.Searches = append(out.Searches, fmt.Sprintf("%s.svc.%s", pod.Namespace, clusterDomain), "svc."+clusterDomain, clusterDomain)
		}
		out.Searches = unique(append(out.Searches, host.GetSearches()...))
		out.Options = []string{"ndots:5"}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		out.Servers = unique(append(out.Servers, c.Nameservers...))
		out.Searches = unique(append(out.Searches, c.Searches...))
		out.Options = mergeOptions(out.Options, c.Options)
	}
	var notes []string
	if len(out.Servers) > maxServers {
		out.Servers = out.Servers[:maxServers]
		notes = append(notes, fmt.Sprintf("Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: %s", strings.Join(out.Servers, " ")))
	}
	cut := false
	if len(out.Searches) > maxSearches {
		out.Searches, cut = out.Searches[:maxSearches], true
	}
	for len(strings.Join(out.Searches, " ")) > maxSearchLength {
		out.Searches, cut = out.Searches[:len(out.Searches)-1], true
	}
	if cut {
		notes = append(notes, fmt.Sprintf("Search Line limits were exceeded, some search paths have been omitted, the applied search line is: %s", strings.Join(out.Searches, " ")))
	}
	return out, strings.Join(notes, "; ")
}

func clone(c *runtimeapi.DNSConfig) *runtimeapi.DNSConfig {
	return &runtimeapi.DNSConfig{Servers: slices.Clone(c.GetServers()), Searches: slices.Clone(c.GetSearches()), Options: slices.Clone(c.GetOptions())}
}

func unique(list []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func mergeOptions(have []string, more []corev1.PodDNSConfigOption) []string {
	m := map[string]string{}
	for _, o := range have {
		name, value, _ := strings.Cut(o, ":")
		m[name] = value
	}
	for _, o := range more {
		m[o.Name] = ""
		if o.Value != nil {
			m[o.Name] = *o.Value
		}
	}
	var out []string
	for name, value := range m {
		if value != "" {
			name += ":" + value
		}
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}

// HostsFile is the content of a pod's /etc/hosts. A pod in the node's network gets the node's own, given as host.
func HostsFile(pod *corev1.Pod, podIPs []string, hostname, domain string, host []byte) []byte {
	var b strings.Builder
	b.WriteString("# Kubernetes-managed hosts file")
	if pod.Spec.HostNetwork {
		b.WriteString(" (host network).\n")
		b.Write(host)
	} else {
		b.WriteString(".\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		for _, ip := range podIPs {
			if domain != "" {
				fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, hostname, domain, hostname)
			} else {
				fmt.Fprintf(&b, "%s\t%s\n", ip, hostname)
			}
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
		}
	}
	return []byte(b.String())
}
