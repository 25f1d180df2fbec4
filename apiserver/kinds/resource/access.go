package resource

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver/kind"
)

// adminPath is the first admin access that an object asks for and old doesn't have, nil if there is none.
func adminPath(obj, old client.Object) *field.Path {
	inSpec := func(s *resourcev1.ResourceClaimSpec, p *field.Path) *field.Path {
		for i := range s.Devices.Requests {
			if e := s.Devices.Requests[i].Exactly; e != nil && ptr.Deref(e.AdminAccess, false) {
				return p.Child("devices", "requests").Index(i).Child("adminAccess")
			}
		}
		return nil
	}
	inStatus := func(a *resourcev1.AllocationResult) *field.Path {
		if a == nil {
			return nil
		}
		i := slices.IndexFunc(a.Devices.Results, func(r resourcev1.DeviceRequestAllocationResult) bool { return ptr.Deref(r.AdminAccess, false) })
		if i < 0 {
			return nil
		}
		return field.NewPath("status", "allocation", "devices", "results").Index(i).Child("adminAccess")
	}
	switch o := obj.(type) {
	case *resourcev1.ResourceClaim:
		if old == nil {
			return inSpec(&o.Spec, field.NewPath("spec"))
		}
		if inStatus(old.(*resourcev1.ResourceClaim).Status.Allocation) == nil {
			return inStatus(o.Status.Allocation)
		}
	case *resourcev1.ResourceClaimTemplate:
		if old == nil {
			return inSpec(&o.Spec.Spec, field.NewPath("spec", "spec"))
		}
	}
	return nil
}

// mayAdminister refuses admin access to devices outside of namespaces that are labelled for it.
func mayAdminister(ctx context.Context, obj, old client.Object) error {
	if obj == nil {
		return nil
	}
	path := adminPath(obj, old)
	access := kind.AccessFrom(ctx)
	if path == nil || access == nil {
		return nil
	}
	var wrong *field.Error
	ns, err := access.Get(ctx, corev1.SchemeGroupVersion.WithKind("Namespace"), "", obj.GetNamespace())
	switch {
	case err != nil:
		wrong = field.InternalError(path, fmt.Errorf("could not retrieve namespace to verify admin access: %w", err))
	case ns.GetLabels()[resourcev1.DRAAdminNamespaceLabelKey] != "true":
		wrong = field.Forbidden(path, fmt.Sprintf("admin access to devices requires the `%s: true` label on the containing namespace", resourcev1.DRAAdminNamespaceLabelKey))
	default:
		return nil
	}
	return apierrors.NewInvalid(obj.GetObjectKind().GroupVersionKind().GroupKind(), obj.GetName(), field.ErrorList{wrong})
}

// mayWrite checks what a status needs more than the right to write it: resourceclaims/binding to allocate and reserve, resourceclaims/driver, by the
// driver's name, to report on devices. The verb is update, or patch where that is not allowed.
func (o Options) mayWrite(ctx context.Context, c *check, now, old *resourcev1.ResourceClaimStatus, namespace string) {
	u, ok := request.UserFrom(ctx)
	if o.Authorizer == nil || !ok {
		return
	}
	status := field.NewPath("status")
	if !apiequality.Semantic.DeepEqual(now.Allocation, old.Allocation) || !apiequality.Semantic.DeepEqual(now.ReservedFor, old.ReservedFor) {
		if err := o.allowed(ctx, u, resourcev1.SubresourceBinding, "", "", "update", "patch"); err != nil {
			c.Forbidden(status.Child("allocation"), fmt.Sprintf(`changing status.allocation or status.reservedFor requires resource="resourceclaims/binding", verb="update" permission: %s`, err))
		}
	}
	if now.Allocation == nil {
		return // what is said of its devices goes with it
	}
	for _, driver := range changedDrivers(now.Devices, old.Devices) {
		verbs := []string{resourcev1.VerbPrefixArbitraryNode + "update", resourcev1.VerbPrefixArbitraryNode + "patch"}
		told := verbs[:1]
		if onNode(u, allocatedNode(now.Allocation)) {
			verbs = append([]string{resourcev1.VerbPrefixAssociatedNode + "update", resourcev1.VerbPrefixAssociatedNode + "patch"}, verbs...)
			told = []string{verbs[0], told[0]}
		}
		if err := o.allowed(ctx, u, resourcev1.SubresourceDriver, namespace, driver, verbs...); err != nil {
			c.Forbidden(status.Child("devices"), fmt.Sprintf(`changing status.devices requires resource="resourceclaims/driver", verb="%s" permission: %s`, told, err))
		}
	}
}

// allowed asks for verb after verb until one is, and returns why the first is not.
func (o Options) allowed(ctx context.Context, u user.Info, subresource, namespace, name string, verbs ...string) error {
	var first error
	for _, verb := range verbs {
		a := authorizer.AttributesRecord{
			User: u, Verb: verb, Namespace: namespace, Name: name, ResourceRequest: true,
			APIGroup: resourcev1.GroupName, APIVersion: "v1", Resource: "resourceclaims", Subresource: subresource,
		}
		decision, reason, err := o.Authorizer.Authorize(ctx, a)
		if decision == authorizer.DecisionAllow {
			return nil
		}
		if first != nil {
			continue
		}
		where := "at the cluster scope"
		if namespace != "" {
			where = fmt.Sprintf("in the namespace %q", namespace)
		}
		text := fmt.Sprintf("User %q cannot %s resource %q in API group %q %s", u.GetName(), verb, "resourceclaims/"+subresource, resourcev1.GroupName, where)
		if err != nil {
			reason = err.Error()
		}
		if reason != "" {
			text += ": " + reason
		}
		first = apierrors.NewForbidden(resourcev1.Resource("resourceclaims"), name, errors.New(text))
	}
	return first
}

// changedDrivers are, in order, those of which a device's status came, went or changed.
func changedDrivers(now, old []resourcev1.AllocatedDeviceStatus) []string {
	before := map[deviceID]*resourcev1.AllocatedDeviceStatus{}
	for i := range old {
		before[idOf(&old[i])] = &old[i]
	}
	var out []string
	for i := range now {
		id := idOf(&now[i])
		if was := before[id]; was == nil || !apiequality.Semantic.DeepEqual(*was, now[i]) {
			out = append(out, now[i].Driver)
		}
		delete(before, id)
	}
	for id := range before {
		out = append(out, id.Driver)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// allocatedNode is the node that an allocation is for, "" if it isn't one.
func allocatedNode(a *resourcev1.AllocationResult) string {
	if a == nil || a.NodeSelector == nil || len(a.NodeSelector.NodeSelectorTerms) != 1 {
		return ""
	}
	term := a.NodeSelector.NodeSelectorTerms[0]
	if len(term.MatchExpressions) != 0 || len(term.MatchFields) != 1 {
		return ""
	}
	f := term.MatchFields[0]
	if f.Key != metav1.ObjectNameField || f.Operator != corev1.NodeSelectorOpIn || len(f.Values) != 1 {
		return ""
	}
	return f.Values[0]
}

// onNode reports whether the user is the service account of a pod on the node.
func onNode(u user.Info, node string) bool {
	if _, _, err := serviceaccount.SplitUsername(u.GetName()); err != nil || node == "" {
		return false
	}
	return slices.Equal(u.GetExtra()[serviceaccount.NodeNameKey], []string{node})
}
