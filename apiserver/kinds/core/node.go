package core

import (
	"context"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
	"github.com/keelson/keelson/apiserver/kinds/internal/table"
	"github.com/keelson/keelson/apiserver/kinds/internal/typed"
	"github.com/keelson/keelson/apiserver/kinds/internal/validate"
	"github.com/keelson/keelson/apiserver/kinds/podspec"
)

func node() *kind.Kind {
	return &kind.Kind{
		GVK:         corev1.SchemeGroupVersion.WithKind("Node"),
		Resource:    "nodes",
		Singular:    "node",
		ShortNames:  []string{"no"},
		StorePrefix: "minions",

		Default: typed.Default(defaultNode),
		// A node registers itself with its status.
		PrepareForCreate: asGiven,
		PrepareForUpdate: typed.PrepareUpdate(func(_ context.Context, n, old *corev1.Node) { n.Status = old.Status }),
		Validate:         typed.Validate(validateNode),
		ValidateUpdate:   typed.ValidateUpdate(validateNodeUpdate),
		Warnings: typed.Warnings(func(_ context.Context, n, old *corev1.Node) []string {
			return nodeWarnings(n, old)
		}),
		AllowUnconditionalUpdate: true,
		Status: &kind.Subresource{
			Prepare: typed.PrepareUpdate(func(_ context.Context, n, old *corev1.Node) {
				n.Spec = old.Spec
				if n.Status.Config == nil {
					n.Status.Config = old.Status.Config
				}
			}),
			Validate: typed.ValidateUpdate(validateNodeUpdate),
		},
		Fields: map[string]func(client.Object) string{
			"spec.unschedulable": typed.Field(func(n *corev1.Node) string {
				if n.Spec.Unschedulable {
					return "true"
				}
				return "false"
			}),
		},
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Text("Status", "The status of the node"),
			table.Text("Roles", "The roles of the node"),
			table.Age(),
			table.Text("Version", corev1.NodeSystemInfo{}.SwaggerDoc()["kubeletVersion"]),
			table.Wide(table.Text("Internal-IP", corev1.NodeStatus{}.SwaggerDoc()["addresses"])),
			table.Wide(table.Text("External-IP", corev1.NodeStatus{}.SwaggerDoc()["addresses"])),
			table.Wide(table.Text("OS-Image", corev1.NodeSystemInfo{}.SwaggerDoc()["osImage"])),
			table.Wide(table.Text("Kernel-Version", corev1.NodeSystemInfo{}.SwaggerDoc()["kernelVersion"])),
			table.Wide(table.Text("Container-Runtime", corev1.NodeSystemInfo{}.SwaggerDoc()["containerRuntimeVersion"])),
		},
		Row: typed.Row(nodeRow),
	}
}

func defaultNode(n *corev1.Node) {
	// podCIDR is the first of podCIDRs; either can be given.
	switch {
	case n.Spec.PodCIDR != "" && (len(n.Spec.PodCIDRs) == 0 || n.Spec.PodCIDRs[0] != n.Spec.PodCIDR):
		n.Spec.PodCIDRs = []string{n.Spec.PodCIDR}
	case n.Spec.PodCIDR == "" && len(n.Spec.PodCIDRs) > 0:
		n.Spec.PodCIDR = n.Spec.PodCIDRs[0]
	}
	podspec.RoundResources(n.Status.Capacity)
	podspec.RoundResources(n.Status.Allocatable)
	if n.Status.Allocatable == nil && n.Status.Capacity != nil {
		n.Status.Allocatable = n.Status.Capacity.DeepCopy()
	}
}

func validateNode(n *corev1.Node) field.ErrorList {
	e := &validate.Errors{}
	taints(e, n.Spec.Taints, field.NewPath("spec", "taints"))
	nodeResources(e, n)
	podCIDRs(e, n.Spec.PodCIDRs, nil)
	return e.List
}

func taints(e *validate.Errors, list []corev1.Taint, path *field.Path) {
	type keyEffect struct {
		key    string
		effect corev1.TaintEffect
	}
	seen := sets.New[keyEffect]()
	for i, taint := range list {
		p := path.Index(i)
		e.Add(metav1validation.ValidateLabelName(taint.Key, p.Child("key")))
		if messages := validation.IsValidLabelValue(taint.Value); len(messages) > 0 {
			e.Invalid(p.Child("value"), taint.Value, strings.Join(messages, ";"))
		}
		podspec.TaintEffect(e, taint.Effect, p.Child("effect"))
		if k := (keyEffect{taint.Key, taint.Effect}); seen.Has(k) {
			e.Duplicate(p, taint)
		} else {
			seen.Insert(k)
		}
	}
}

func nodeResources(e *validate.Errors, n *corev1.Node) {
	for _, list := range []struct {
		name      string
		resources corev1.ResourceList
	}{{"capacity", n.Status.Capacity}, {"allocatable", n.Status.Allocatable}} {
		for _, name := range sets.List(sets.KeySet(list.resources)) {
			p := field.NewPath("status", list.name).Child(string(name)) // not as a key, as in kube-apiserver
			e.ResourceQuantity(name, list.resources[name], p)
			if list.name == "capacity" && validate.IsHugePages(name) {
				e.HugePagesQuantity(name, list.resources[name], p)
			}
		}
	}
}

func podCIDRs(e *validate.Errors, cidrs, old []string) {
	path := field.NewPath("spec", "podCIDRs")
	families := sets.New[bool]()
	for i, cidr := range cidrs {
		errs := validation.IsValidCIDRForLegacyField(path.Index(i), cidr, true, old)
		e.Add(errs)
		families.Insert(strings.Contains(cidr, ":"))
	}
	if len(cidrs) > 2 || len(cidrs) == 2 && families.Len() == 1 {
		e.Invalid(path, cidrs, "may specify no more than one CIDR for each IP family")
	}
}

func validateNodeUpdate(n, old *corev1.Node) field.ErrorList {
	e := &validate.Errors{}
	spec := field.NewPath("spec")
	addresses := sets.New[corev1.NodeAddress]()
	for i, address := range n.Status.Addresses {
		if addresses.Has(address) {
			e.Duplicate(field.NewPath("status", "addresses").Index(i), address)
		}
		addresses.Insert(address)
	}
	if len(old.Spec.PodCIDRs) > 0 {
		if !slices.Equal(n.Spec.PodCIDRs, old.Spec.PodCIDRs) {
			e.Forbidden(spec.Child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid")
		}
	} else {
		podCIDRs(e, n.Spec.PodCIDRs, old.Spec.PodCIDRs)
	}
	if old.Spec.ProviderID != "" && n.Spec.ProviderID != old.Spec.ProviderID {
		e.Forbidden(spec.Child("providerID"), "node updates may not change providerID except from \"\" to valid")
	}
	taints(e, n.Spec.Taints, spec.Child("taints"))
	nodeResources(e, n)
	rest, before := n.Spec.DeepCopy(), old.Spec.DeepCopy()
	for _, s := range []*corev1.NodeSpec{rest, before} {
		s.PodCIDR, s.PodCIDRs, s.ProviderID, s.Unschedulable, s.Taints, s.ConfigSource = "", nil, "", false, nil, nil
	}
	if !equality.Semantic.DeepEqual(rest, before) {
		e.Forbidden(field.NewPath(""), "node updates may only change labels, taints, or capacity")
	}
	return e.List
}

func nodeWarnings(n, old *corev1.Node) []string {
	var out []string
	if n.Spec.ConfigSource != nil && (old == nil || old.Spec.ConfigSource == nil) {
		out = append(out, "spec.configSource: the feature is no longer supported. DynamicKubeletConfig feature is deprecated in 1.22 and removed in 1.26")
	}
	if n.Spec.DoNotUseExternalID != "" && (old == nil || old.Spec.DoNotUseExternalID == "") {
		out = append(out, "spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	for i, cidr := range n.Spec.PodCIDRs {
		if old == nil || len(old.Spec.PodCIDRs) <= i || old.Spec.PodCIDRs[i] != cidr {
			out = append(out, validate.CIDRWarnings(field.NewPath("spec", "podCIDRs").Index(i), cidr)...)
		}
	}
	return out
}

const rolePrefix = "node-role.kubernetes.io/"

func nodeRow(n *corev1.Node, now time.Time) []any {
	status := ""
	for _, condition := range n.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			status = "NotReady"
			if condition.Status == corev1.ConditionTrue {
				status = "Ready"
			}
		}
	}
	if status == "" {
		status = "Unknown"
	}
	if n.Spec.Unschedulable {
		status += ",SchedulingDisabled"
	}
	roles := sets.New[string]()
	for label, value := range n.Labels {
		if role, prefixed := strings.CutPrefix(label, rolePrefix); prefixed && role != "" {
			roles.Insert(role)
		} else if label == "kubernetes.io/role" && value != "" {
			roles.Insert(value)
		}
	}
	role := "<none>"
	if roles.Len() > 0 {
		role = strings.Join(sets.List(roles), ",")
	}
	address := func(t corev1.NodeAddressType) string {
		for _, a := range n.Status.Addresses {
			if a.Type == t {
				return a.Address
			}
		}
		return "<none>"
	}
	known := func(s string) string {
		if s == "" {
			return "<unknown>"
		}
		return s
	}
	info := n.Status.NodeInfo
	return []any{
		n.Name, status, role, table.Since(n.CreationTimestamp, now), info.KubeletVersion,
		address(corev1.NodeInternalIP), address(corev1.NodeExternalIP), known(info.OSImage), known(info.KernelVersion), known(info.ContainerRuntimeVersion),
	}
}
