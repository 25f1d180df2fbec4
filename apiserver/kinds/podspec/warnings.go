package podspec

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
)

// PodWarnings returns what Kubernetes warns of in a Pod. old is nil on create; an update whose spec did not change
// has no warnings.
func PodWarnings(ctx context.Context, pod, old *corev1.Pod) []string {
	var template, oldTemplate *corev1.PodTemplateSpec
	template = &corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec}
	if old != nil {
		oldTemplate = &corev1.PodTemplateSpec{ObjectMeta: old.ObjectMeta, Spec: old.Spec}
	}
	return TemplateWarnings(ctx, template, oldTemplate, nil)
}

// TemplateWarnings returns what Kubernetes warns of in a template: deprecated fields and annotations, duplicates, values
// that have no effect. old is nil on create.
func TemplateWarnings(ctx context.Context, template, old *corev1.PodTemplateSpec, path *field.Path) []string {
	w := &warner{}
	w.annotations(template, path.Child("metadata", "annotations"))
	w.spec(&template.Spec, path.Child("spec"))
	if old == nil {
		return w.list
	}
	// What was so already is not told again.
	before := &warner{}
	before.annotations(old, path.Child("metadata", "annotations"))
	before.spec(&old.Spec, path.Child("spec"))
	known := sets.New(before.list...)
	return slices.DeleteFunc(w.list, known.Has)
}

type warner struct{ list []string }

func (w *warner) add(p *field.Path, format string, args ...any) {
	w.list = append(w.list, p.String()+": "+fmt.Sprintf(format, args...))
}

var deprecatedNodeLabels = map[string]string{
	"beta.kubernetes.io/arch":                  `deprecated since v1.14; use "kubernetes.io/arch" instead`,
	"beta.kubernetes.io/os":                    `deprecated since v1.14; use "kubernetes.io/os" instead`,
	"failure-domain.beta.kubernetes.io/region": `deprecated since v1.17; use "topology.kubernetes.io/region" instead`,
	"failure-domain.beta.kubernetes.io/zone":   `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`,
	"beta.kubernetes.io/instance-type":         `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`,
}

// NodeLabelWarning returns why a node's label should not be used any more, or "".
func NodeLabelWarning(label string) string { return deprecatedNodeLabels[label] }

func (w *warner) nodeLabel(label string, p *field.Path) {
	if text, deprecated := deprecatedNodeLabels[label]; deprecated {
		w.add(p, "%s is %s", label, text)
	}
}

func (w *warner) annotations(template *corev1.PodTemplateSpec, p *field.Path) {
	names := sets.List(sets.KeySet(template.Annotations))
	for _, name := range names {
		switch {
		case strings.HasPrefix(name, appArmor):
			container := strings.TrimPrefix(name, appArmor)
			set := template.Spec.SecurityContext != nil && template.Spec.SecurityContext.AppArmorProfile != nil
			each(&template.Spec, nil, func(c *corev1.Container, _ *field.Path) {
				set = set || c.Name == container && c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil
			})
			if !set {
				w.add(p.Key(name), `deprecated since v1.30; use the "appArmorProfile" field instead`)
			}
		case name == seccompPod || strings.HasPrefix(name, seccompCtr):
			w.add(p.Key(name), `non-functional in v1.27+; use the "seccompProfile" field instead`)
		case name == "security.alpha.kubernetes.io/sysctls" || name == "security.alpha.kubernetes.io/unsafe-sysctls":
			w.add(p.Key(name), `non-functional in v1.11+; use the "sysctls" field instead`)
		case name == "scheduler.alpha.kubernetes.io/critical-pod":
			w.add(p.Key(name), `non-functional in v1.16+; use the "priorityClassName" field instead`)
		}
	}
}

func (w *warner) spec(s *corev1.PodSpec, p *field.Path) {
	for _, label := range sets.List(sets.KeySet(s.NodeSelector)) {
		if text, deprecated := deprecatedNodeLabels[label]; deprecated {
			w.add(p.Child("nodeSelector").Key(label), "%s", text)
		}
	}
	w.affinity(s.Affinity, p.Child("affinity"))
	for i, t := range s.TopologySpreadConstraints {
		w.nodeLabel(t.TopologyKey, p.Child("topologySpreadConstraints").Index(i).Child("topologyKey"))
		w.nullSelector(t.LabelSelector, p.Child("topologySpreadConstraints").Index(i).Child("labelSelector"))
	}
	for i := range s.Volumes {
		w.volume(&s.Volumes[i], p.Child("volumes").Index(i))
	}
	seen := map[string]int{}
	for i, alias := range s.HostAliases {
		if _, duplicate := seen[alias.IP]; duplicate {
			w.add(p.Child("hostAliases").Index(i).Child("ip"), "duplicate ip %q", alias.IP)
		}
		seen[alias.IP] = i
		w.list = append(w.list, validate.IPWarnings(p.Child("hostAliases").Index(i).Child("ip"), alias.IP)...)
	}
	if s.DNSConfig != nil {
		for i, server := range s.DNSConfig.Nameservers {
			w.list = append(w.list, validate.IPWarnings(p.Child("dnsConfig", "nameservers").Index(i), server)...)
		}
	}
	secrets := map[string]int{}
	for i, secret := range s.ImagePullSecrets {
		if _, duplicate := secrets[secret.Name]; secret.Name == "" {
			w.add(p.Child("imagePullSecrets").Index(i).Child("name"), "invalid empty name %q", secret.Name)
		} else if duplicate {
			w.add(p.Child("imagePullSecrets").Index(i).Child("name"), "duplicate name %q", secret.Name)
		}
		secrets[secret.Name] = i
	}
	each(s, p, w.container)
	w.portNames(s, p)
	w.fractions(s.Overhead, p.Child("overhead"))
	if grace := s.TerminationGracePeriodSeconds; grace != nil && *grace < 0 {
		w.add(p.Child("terminationGracePeriodSeconds"), "must be >= 0; negative values are invalid and will be treated as 1")
	}
}

func (w *warner) nullSelector(selector *metav1.LabelSelector, p *field.Path) {
	if selector == nil {
		w.add(p, "a null labelSelector results in matching no pod")
	}
}

func (w *warner) affinity(a *corev1.Affinity, p *field.Path) {
	if a == nil {
		return
	}
	term := func(t *corev1.NodeSelectorTerm, p *field.Path) {
		for i, r := range t.MatchExpressions {
			w.nodeLabel(r.Key, p.Child("matchExpressions").Index(i).Child("key"))
		}
	}
	if n := a.NodeAffinity; n != nil {
		p := p.Child("nodeAffinity")
		if required := n.RequiredDuringSchedulingIgnoredDuringExecution; required != nil {
			for i := range required.NodeSelectorTerms {
				term(&required.NodeSelectorTerms[i], p.Child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms").Index(i))
			}
		}
		for i := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			term(&n.PreferredDuringSchedulingIgnoredDuringExecution[i].Preference, p.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("preference"))
		}
	}
	pods := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm, p *field.Path) {
		for i, t := range required {
			w.nullSelector(t.LabelSelector, p.Child("requiredDuringSchedulingIgnoredDuringExecution").Index(i).Child("labelSelector"))
		}
		for i, t := range preferred {
			w.nullSelector(t.PodAffinityTerm.LabelSelector, p.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("podAffinityTerm", "labelSelector"))
		}
	}
	if n := a.PodAffinity; n != nil {
		pods(n.RequiredDuringSchedulingIgnoredDuringExecution, n.PreferredDuringSchedulingIgnoredDuringExecution, p.Child("podAffinity"))
	}
	if n := a.PodAntiAffinity; n != nil {
		pods(n.RequiredDuringSchedulingIgnoredDuringExecution, n.PreferredDuringSchedulingIgnoredDuringExecution, p.Child("podAntiAffinity"))
	}
}

func (w *warner) volume(v *corev1.Volume, p *field.Path) {
	switch {
	case v.PhotonPersistentDisk != nil:
		w.add(p.Child("photonPersistentDisk"), "deprecated in v1.11, non-functional in v1.16+")
	case v.GitRepo != nil:
		w.add(p.Child("gitRepo"), "deprecated in v1.11, and disabled by default in v1.33+")
	case v.ScaleIO != nil:
		w.add(p.Child("scaleIO"), "deprecated in v1.16, non-functional in v1.22+")
	case v.Flocker != nil:
		w.add(p.Child("flocker"), "deprecated in v1.22, non-functional in v1.25+")
	case v.StorageOS != nil:
		w.add(p.Child("storageOS"), "deprecated in v1.22, non-functional in v1.25+")
	case v.Quobyte != nil:
		w.add(p.Child("quobyte"), "deprecated in v1.22, non-functional in v1.25+")
	case v.Glusterfs != nil:
		w.add(p.Child("glusterfs"), "deprecated in v1.25, non-functional in v1.26+")
	case v.CephFS != nil:
		w.add(p.Child("cephfs"), "deprecated in v1.28, non-functional in v1.31+")
	case v.RBD != nil:
		w.add(p.Child("rbd"), "deprecated in v1.28, non-functional in v1.31+")
	}
}

func (w *warner) container(c *corev1.Container, p *field.Path) {
	w.fractions(c.Resources.Limits, p.Child("resources", "limits"))
	w.fractions(c.Resources.Requests, p.Child("resources", "requests"))
	names := sets.New[string]()
	for i, v := range c.Env {
		// A variable that refers to an earlier one of its name is meant so.
		if names.Has(v.Name) && !strings.Contains(v.Value, "$("+v.Name+")") {
			w.add(p.Child("env").Index(i), "hides previous definition of %q, which may be dropped when using apply", v.Name)
		}
		names.Insert(v.Name)
	}
	for i, port := range c.Ports {
		for j, earlier := range c.Ports[:i] {
			same := port.ContainerPort == earlier.ContainerPort && port.Protocol == earlier.Protocol
			at, other := p.Child("ports").Index(i), p.Child("ports").Index(j)
			switch {
			case same && port.HostPort == earlier.HostPort && port.HostIP == earlier.HostIP:
				w.add(at, "duplicate port definition with %s", other)
			case same && port.HostPort == 0 != (earlier.HostPort == 0):
				w.add(at, "overlapping port definition with %s", other)
			default:
				continue
			}
			break
		}
		if port.HostIP != "" {
			w.list = append(w.list, validate.IPWarnings(p.Child("ports").Index(i).Child("hostIP"), port.HostIP)...)
		}
	}
}

// portNames: a name that two containers give to different ports means the first.
func (w *warner) portNames(s *corev1.PodSpec, p *field.Path) {
	type use struct {
		container string
		p         *field.Path
	}
	first := map[string]use{}
	visit := func(c *corev1.Container, p *field.Path) {
		for i, port := range c.Ports {
			if port.Name == "" {
				continue
			}
			at := p.Child("ports").Index(i).Child("name")
			earlier, named := first[port.Name]
			if !named {
				first[port.Name] = use{c.Name, at}
			} else if earlier.container != c.Name {
				w.add(at, "duplicate port name %q with %s, services and probes that select ports by name will use %s", port.Name, earlier.p, earlier.p)
			}
		}
	}
	for i := range s.Containers {
		visit(&s.Containers[i], p.Child("containers").Index(i))
	}
	for i := range s.InitContainers {
		c := &s.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			visit(c, p.Child("initContainers").Index(i))
		}
	}
}

func (w *warner) fractions(list corev1.ResourceList, p *field.Path) {
	for _, name := range []corev1.ResourceName{corev1.ResourceEphemeralStorage, corev1.ResourceMemory} {
		if quantity, set := list[name]; set && quantity.MilliValue()%1000 != 0 {
			w.add(p.Key(string(name)), "fractional byte value %q is invalid, must be an integer", quantity.String())
		}
	}
}
