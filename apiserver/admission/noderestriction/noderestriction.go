package noderestriction

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Name is the name of the plugin.
const Name = "NodeRestriction"

const userPrefix = "system:node:"

// NodeOf returns the node that a user is the kubelet of. A kubelet whose name tells no node has none, and may change nothing.
func NodeOf(u user.Info) (node string, isNode bool) {
	if u == nil || !slices.Contains(u.GetGroups(), user.NodesGroup) || !strings.HasPrefix(u.GetName(), userPrefix) {
		return "", false
	}
	return strings.TrimPrefix(u.GetName(), userPrefix), true
}

// Options of the plugin.
type Options struct{}

// Plugin implements admission.MutationInterface: it must see objects before other plugins change them.
type Plugin struct {
	*admission.Handler
	pods client.Reader
}

var _ admission.MutationInterface = (*Plugin)(nil)

// New returns the plugin, which reads Pods and Nodes from reader.
func New(reader client.Reader, _ Options) (*Plugin, error) {
	if reader == nil {
		return nil, errors.New("noderestriction: reader: expected one, got nil")
	}
	return &Plugin{Handler: admission.NewHandler(admission.Create, admission.Update, admission.Delete), pods: reader}, nil
}

// Admit implements admission.MutationInterface; it changes nothing.
func (p *Plugin) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	node, ok := NodeOf(a.GetUserInfo())
	if !ok {
		return nil
	}
	if node == "" {
		return admission.NewForbidden(a, fmt.Errorf("could not determine node from user %q", a.GetUserInfo().GetName()))
	}
	switch r := a.GetResource(); r.Group + "/" + r.Resource {
	case "/pods":
		return p.pod(ctx, node, a)
	case "/nodes":
		return p.node(ctx, node, a)
	case "/persistentvolumeclaims":
		return claim(node, a)
	case "/serviceaccounts":
		if a.GetSubresource() == "token" {
			return p.token(ctx, node, a)
		}
	case "coordination.k8s.io/leases":
		return lease(node, a)
	case "storage.k8s.io/csinodes":
		return named[*storagev1.CSINode](node, a, "can only access CSINode with the same name as the requesting node")
	}
	return nil
}

func (p *Plugin) pod(ctx context.Context, node string, a admission.Attributes) error {
	switch a.GetSubresource() {
	case "":
		switch a.GetOperation() {
		case admission.Create:
			return p.createPod(ctx, node, a)
		case admission.Delete:
			return p.deletePod(ctx, node, a, "node %q can only delete pods with spec.nodeName set to itself")
		}
		return admission.NewForbidden(a, fmt.Errorf("unexpected operation %q, node %q can only create and delete mirror pods", a.GetOperation(), node))
	case "status":
		old, ok := a.GetOldObject().(*corev1.Pod)
		pod, okNew := a.GetObject().(*corev1.Pod)
		if a.GetOperation() != admission.Update || !ok || !okNew {
			return admission.NewForbidden(a, fmt.Errorf("unexpected operation %q", a.GetOperation()))
		}
		if old.Spec.NodeName != node {
			return admission.NewForbidden(a, fmt.Errorf("node %q can only update pod status for pods with spec.nodeName set to itself", node))
		}
		if !apiequality.Semantic.DeepEqual(old.Labels, pod.Labels) {
			return admission.NewForbidden(a, fmt.Errorf("node %q cannot update labels through pod status", node))
		}
		if !apiequality.Semantic.DeepEqual(old.Status.ResourceClaimStatuses, pod.Status.ResourceClaimStatuses) {
			return admission.NewForbidden(a, fmt.Errorf("node %q cannot update resource claim statuses", node))
		}
		return nil
	case "eviction":
		if a.GetOperation() != admission.Create {
			return admission.NewForbidden(a, fmt.Errorf("unexpected operation %s", a.GetOperation()))
		}
		return p.deletePod(ctx, node, a, "node %v can only evict pods with spec.nodeName set to itself")
	default:
		return admission.NewForbidden(a, fmt.Errorf("unexpected pod subresource %q, only 'status' and 'eviction' are allowed", a.GetSubresource()))
	}
}

// createPod lets kubelets make mirror pods of their static pods only, which may use nothing that needs a permission.
func (p *Plugin) createPod(ctx context.Context, node string, a admission.Attributes) error {
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok {
		return admission.NewForbidden(a, fmt.Errorf("unexpected type %T", a.GetObject()))
	}
	refuse := func(format string, args ...any) error {
		return admission.NewForbidden(a, fmt.Errorf(format, args...))
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; !mirror {
		return refuse("pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node)
	}
	if pod.Spec.NodeName != node {
		return refuse("node %q can only create pods with spec.nodeName set to itself", node)
	}
	if len(pod.OwnerReferences) > 1 {
		return refuse("node %q can only create pods with a single owner reference set to itself", node)
	}
	if len(pod.OwnerReferences) == 0 {
		return refuse("node %q can only create pods with an owner reference set to itself", node)
	}
	if len(pod.OwnerReferences) == 1 {
		owner := pod.OwnerReferences[0]
		if owner.APIVersion != "v1" || owner.Kind != "Node" || owner.Name != node {
			return refuse("node %q can only create pods with an owner reference set to itself", node)
		}
		if owner.Controller == nil || !*owner.Controller {
			return refuse("node %q can only create pods with a controller owner reference set to itself", node)
		}
		if owner.BlockOwnerDeletion != nil && *owner.BlockOwnerDeletion {
			return refuse("node %q must not set blockOwnerDeletion on an owner reference", node)
		}
		var n corev1.Node
		if err := p.pods.Get(ctx, client.ObjectKey{Name: node}, &n); err != nil {
			return refuse("error looking up node %s to verify uid: %w", node, err)
		}
		if owner.UID != n.UID {
			return refuse("node %s UID mismatch: expected %s got %s", node, owner.UID, n.UID)
		}
	}
	if pod.Spec.ServiceAccountName != "" {
		return refuse("node %q can not create pods that reference a service account", node)
	}
	if what := reference(pod); what != "" {
		return refuse("node %q can not create pods that reference %s", node, what)
	}
	return nil
}

// reference names the kind of an object that a pod uses.
func reference(pod *corev1.Pod) string {
	if len(pod.Spec.ImagePullSecrets) > 0 {
		return "secrets"
	}
	env := func(vars []corev1.EnvVar, from []corev1.EnvFromSource) string {
		for _, e := range vars {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				return "secrets"
			}
			if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
				return "configmaps"
			}
		}
		for _, e := range from {
			if e.SecretRef != nil {
				return "secrets"
			}
			if e.ConfigMapRef != nil {
				return "configmaps"
			}
		}
		return ""
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if what := env(list[i].Env, list[i].EnvFrom); what != "" {
				return what
			}
		}
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		switch {
		case v.Secret != nil:
			return "secrets"
		case v.ConfigMap != nil:
			return "configmaps"
		case v.PersistentVolumeClaim != nil, v.Ephemeral != nil:
			return "persistentvolumeclaims"
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				switch {
				case s.Secret != nil:
					return "secrets"
				case s.ConfigMap != nil:
					return "configmaps"
				case s.ServiceAccountToken != nil:
					return "serviceaccount projections"
				case s.ClusterTrustBundle != nil:
					return "clustertrustbundles"
				}
			}
		case v.HostPath != nil, v.EmptyDir != nil, v.DownwardAPI != nil:
		default:
			if v.CSI != nil || v.ISCSI != nil || v.RBD != nil || v.CephFS != nil || v.Cinder != nil || v.FlexVolume != nil || v.AzureFile != nil || v.ScaleIO != nil || v.StorageOS != nil {
				return "secrets"
			}
		}
	}
	if len(pod.Spec.ResourceClaims) > 0 {
		return "resourceclaims"
	}
	return ""
}

func (p *Plugin) deletePod(ctx context.Context, node string, a admission.Attributes, message string) error {
	var pod corev1.Pod
	err := p.pods.Get(ctx, client.ObjectKey{Namespace: a.GetNamespace(), Name: a.GetName()}, &pod)
	if apierrors.IsNotFound(err) {
		return err
	}
	if err != nil {
		return admission.NewForbidden(a, err)
	}
	if pod.Spec.NodeName != node {
		return admission.NewForbidden(a, fmt.Errorf(message, node))
	}
	return nil
}

// claim lets kubelets report on the capacity of claims that they resize, and change nothing else of them.
func claim(node string, a admission.Attributes) error {
	if a.GetSubresource() != "status" || a.GetOperation() != admission.Update {
		return admission.NewForbidden(a, fmt.Errorf("unexpected pvc subresource %q or operation %q, only updates of 'status' are allowed", a.GetSubresource(), a.GetOperation()))
	}
	old, ok := a.GetOldObject().(*corev1.PersistentVolumeClaim)
	now, okNew := a.GetObject().(*corev1.PersistentVolumeClaim)
	if !ok || !okNew {
		return admission.NewForbidden(a, fmt.Errorf("unexpected type %T", a.GetObject()))
	}
	old, now = old.DeepCopy(), now.DeepCopy()
	for _, c := range []*corev1.PersistentVolumeClaim{old, now} {
		c.ResourceVersion, c.ManagedFields = "", nil
		c.Status.Capacity, c.Status.Conditions, c.Status.AllocatedResources, c.Status.AllocatedResourceStatuses = nil, nil, nil, nil
	}
	if !apiequality.Semantic.DeepEqual(old, now) {
		return admission.NewForbidden(a, fmt.Errorf("node %q is not allowed to update fields other than status.quantity and status.conditions", node))
	}
	return nil
}

func (p *Plugin) token(ctx context.Context, node string, a admission.Attributes) error {
	request, ok := a.GetObject().(*authenticationv1.TokenRequest)
	if !ok {
		return admission.NewForbidden(a, fmt.Errorf("unexpected type %T", a.GetObject()))
	}
	ref := request.Spec.BoundObjectRef
	if ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "" {
		return admission.NewForbidden(a, errors.New("node requested token not bound to a pod"))
	}
	if ref.UID == "" {
		return admission.NewForbidden(a, errors.New("node requested token with a pod binding without a uid"))
	}
	var pod corev1.Pod
	err := p.pods.Get(ctx, client.ObjectKey{Namespace: a.GetNamespace(), Name: ref.Name}, &pod)
	if apierrors.IsNotFound(err) {
		return err
	}
	if err != nil {
		return admission.NewForbidden(a, err)
	}
	if ref.UID != pod.UID {
		return admission.NewForbidden(a, fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID))
	}
	if pod.Spec.NodeName != node {
		return admission.NewForbidden(a, errors.New("node requested token bound to a pod scheduled on a different node"))
	}
	return nil
}

func lease(node string, a admission.Attributes) error {
	if a.GetNamespace() != corev1.NamespaceNodeLease {
		return admission.NewForbidden(a, fmt.Errorf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease))
	}
	return named[*coordinationv1.Lease](node, a, "can only access node lease with the same name as the requesting node")
}

// named lets through what concerns an object of the node's own name.
func named[T client.Object](node string, a admission.Attributes, message string) error {
	name := a.GetName()
	if a.GetOperation() == admission.Create {
		// The name may be in the object only.
		if o, ok := a.GetObject().(T); ok {
			name = o.GetName()
		}
	}
	if name != node {
		return admission.NewForbidden(a, errors.New(message))
	}
	return nil
}
