package controllertest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// Call is one request to a Cluster.
type Call struct {
	// Verb is get, list, watch, create, update, patch, delete or deletecollection.
	Verb        string
	Kind        schema.GroupVersionKind
	Subresource string
	Namespace   string
	Name        string
	// Object is what a create or update sends; nil otherwise.
	Object client.Object
}

// Cluster is an API in memory. Its methods may be called from any goroutine.
type Cluster struct {
	// GracefulPods makes the deletion of a pod that has a node wait for its
	// grace period to be cut to zero, as a kubelet does. Set it before use.
	GracefulPods bool

	scheme *runtime.Scheme
	mapper meta.RESTMapper

	mu      sync.Mutex
	version uint64
	lastUID uint64
	objects map[schema.GroupVersionKind]map[types.NamespacedName]client.Object
	log     []logged
	watches map[*watcher]struct{}
	fault   func(Call) error
	calls   []Call
}

type logged struct {
	version uint64
	kind    schema.GroupVersionKind
	event   watch.EventType
	object  client.Object
	old     client.Object
}

// NewCluster makes a cluster of the built-in kinds, holding objs as they are.
func NewCluster(objs ...client.Object) *Cluster {
	c := &Cluster{
		scheme:  scheme.Scheme,
		mapper:  newMapper(scheme.Scheme),
		objects: map[schema.GroupVersionKind]map[types.NamespacedName]client.Object{},
		watches: map[*watcher]struct{}{},
		version: 100,
	}
	for _, o := range objs {
		c.Put(o)
	}
	return c
}

var clusterScoped = []string{
	"Namespace", "Node", "PersistentVolume", "ClusterRole", "ClusterRoleBinding", "StorageClass", "PriorityClass",
	"RuntimeClass", "IngressClass", "CertificateSigningRequest", "CSIDriver", "CSINode", "VolumeAttachment",
	"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration",
	"APIService", "CustomResourceDefinition", "FlowSchema", "PriorityLevelConfiguration", "ServiceCIDR", "IPAddress",
}

func newMapper(s *runtime.Scheme) meta.RESTMapper {
	m := meta.NewDefaultRESTMapper(s.PrioritizedVersionsAllGroups())
	for gvk := range s.AllKnownTypes() {
		if gvk.Version == runtime.APIVersionInternal || strings.HasSuffix(gvk.Kind, "List") {
			continue
		}
		scope := meta.RESTScopeNamespace
		if slices.Contains(clusterScoped, gvk.Kind) {
			scope = meta.RESTScopeRoot
		}
		m.Add(gvk, scope)
	}
	return m
}

// React makes requests fail: f's error, if any, answers the request. Nil takes
// f back. f must not call the cluster.
func (c *Cluster) React(f func(Call) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = f
}

// Calls returns the requests so far and forgets them.
func (c *Cluster) Calls() []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.calls
	c.calls = nil
	return out
}

func (c *Cluster) enter(call Call) error {
	c.calls = append(c.calls, call)
	if c.fault != nil {
		return c.fault(call)
	}
	return nil
}

func (c *Cluster) kindOf(o runtime.Object) (schema.GroupVersionKind, error) {
	gvk, err := apiutil.GVKForObject(o, c.scheme)
	if err != nil {
		return gvk, err
	}
	gvk.Kind = strings.TrimSuffix(gvk.Kind, "List")
	return gvk, nil
}

func (c *Cluster) resource(gvk schema.GroupVersionKind) schema.GroupResource {
	if m, err := c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version); err == nil {
		return m.Resource.GroupResource()
	}
	return schema.GroupResource{Group: gvk.Group, Resource: strings.ToLower(gvk.Kind) + "s"}
}

// Put stores an object as it is, status and all, with a uid and a version.
func (c *Cluster) Put(o client.Object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	gvk, err := c.kindOf(o)
	if err != nil {
		panic(err) // a test's own mistake
	}
	o = c.clean(o, gvk)
	if o.GetUID() == "" {
		o.SetUID(c.newUID())
	}
	if t := o.GetCreationTimestamp(); t.IsZero() {
		o.SetCreationTimestamp(metav1.NewTime(time.Now().Truncate(time.Second)))
	}
	c.store(gvk, o)
}

// Edit changes an object in place by f, status and all, and returns the result.
func Edit[T client.Object](c *Cluster, namespace, name string, f func(T)) T {
	proto := newObject[T]()
	c.mu.Lock()
	defer c.mu.Unlock()
	gvk, err := c.kindOf(proto)
	if err != nil {
		panic(err)
	}
	cur, ok := c.objects[gvk][types.NamespacedName{Namespace: namespace, Name: name}]
	if !ok {
		panic(fmt.Sprintf("controllertest: no %s %s/%s", gvk.Kind, namespace, name))
	}
	o := cur.DeepCopyObject().(T)
	f(o)
	if generationChanged(cur, o) {
		o.SetGeneration(cur.GetGeneration() + 1)
	}
	c.store(gvk, o)
	return o.DeepCopyObject().(T)
}

// Get returns a copy of an object, or false.
func Get[T client.Object](c *Cluster, namespace, name string) (T, bool) {
	for _, o := range All[T](c) {
		if o.GetNamespace() == namespace && o.GetName() == name {
			return o, true
		}
	}
	var none T
	return none, false
}

// All returns copies of all objects of a kind, ordered by namespace and name.
func All[T client.Object](c *Cluster) []T {
	proto := newObject[T]()
	c.mu.Lock()
	defer c.mu.Unlock()
	gvk, err := c.kindOf(proto)
	if err != nil {
		panic(err)
	}
	var out []T
	for _, o := range c.sorted(gvk) {
		out = append(out, o.DeepCopyObject().(T))
	}
	return out
}

func newObject[T client.Object]() T {
	return reflect.New(reflect.TypeFor[T]().Elem()).Interface().(T)
}

func (c *Cluster) sorted(gvk schema.GroupVersionKind) []client.Object {
	out := make([]client.Object, 0, len(c.objects[gvk]))
	for _, o := range c.objects[gvk] {
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b client.Object) int {
		if n := strings.Compare(a.GetNamespace(), b.GetNamespace()); n != 0 {
			return n
		}
		return strings.Compare(a.GetName(), b.GetName())
	})
	return out
}

func (c *Cluster) newUID() types.UID {
	c.lastUID++
	return types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", c.lastUID))
}

// clean copies an object without its TypeMeta, as decoders leave typed objects.
func (c *Cluster) clean(o client.Object, gvk schema.GroupVersionKind) client.Object {
	o = o.DeepCopyObject().(client.Object)
	if _, ok := o.(*unstructured.Unstructured); !ok {
		o.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		return o
	}
	if t, err := c.scheme.New(gvk); err == nil {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.(*unstructured.Unstructured).Object, t); err == nil {
			t.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
			return t.(client.Object)
		}
	}
	return o
}

// store commits an object, which must not be touched after.
func (c *Cluster) store(gvk schema.GroupVersionKind, o client.Object) {
	key := client.ObjectKeyFromObject(o)
	old := c.objects[gvk][key]
	c.version++
	o.SetResourceVersion(strconv.FormatUint(c.version, 10))
	if c.objects[gvk] == nil {
		c.objects[gvk] = map[types.NamespacedName]client.Object{}
	}
	c.objects[gvk][key] = o
	event := watch.Added
	if old != nil {
		event = watch.Modified
	}
	c.publish(logged{c.version, gvk, event, o, old})
}

func (c *Cluster) remove(gvk schema.GroupVersionKind, o client.Object) {
	delete(c.objects[gvk], client.ObjectKeyFromObject(o))
	c.version++
	last := o.DeepCopyObject().(client.Object)
	last.SetResourceVersion(strconv.FormatUint(c.version, 10))
	c.publish(logged{c.version, gvk, watch.Deleted, last, o})
}

// Remove deletes an object at once, whatever its finalizers.
func (c *Cluster) Remove(o client.Object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	gvk, err := c.kindOf(o)
	if err != nil {
		panic(err)
	}
	if cur, ok := c.objects[gvk][client.ObjectKeyFromObject(o)]; ok {
		c.remove(gvk, cur)
	}
}

func content(o client.Object) (m map[string]any) {
	b, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		panic(err)
	}
	return m
}

func generationChanged(old, cur client.Object) bool {
	a, b := content(old), content(cur)
	for _, m := range []map[string]any{a, b} {
		delete(m, "metadata")
		delete(m, "status")
	}
	return !reflect.DeepEqual(a, b) || old.GetDeletionTimestamp().IsZero() != cur.GetDeletionTimestamp().IsZero()
}

func same(a, b client.Object) bool { return reflect.DeepEqual(content(a), content(b)) }

// copyStatus makes to's status that of from; from nil empties it.
func copyStatus(to, from client.Object) bool {
	if u, ok := to.(*unstructured.Unstructured); ok {
		delete(u.Object, "status")
		if f, ok := from.(*unstructured.Unstructured); ok && f.Object["status"] != nil {
			u.Object["status"] = runtime.DeepCopyJSONValue(f.Object["status"])
		}
		return true
	}
	dst := reflect.ValueOf(to).Elem().FieldByName("Status")
	if !dst.IsValid() {
		return false
	}
	if from == nil {
		dst.SetZero()
		return true
	}
	dst.Set(reflect.ValueOf(from.DeepCopyObject()).Elem().FieldByName("Status"))
	return true
}

func (c *Cluster) create(o client.Object) (client.Object, error) {
	gvk, err := c.kindOf(o)
	if err != nil {
		return nil, err
	}
	if err := c.enter(Call{Verb: "create", Kind: gvk, Namespace: o.GetNamespace(), Name: o.GetName(), Object: o}); err != nil {
		return nil, err
	}
	if o.GetResourceVersion() != "" {
		return nil, apierrors.NewBadRequest("resourceVersion can not be set for Create requests")
	}
	n := c.clean(o, gvk)
	if n.GetName() == "" && n.GetGenerateName() != "" {
		c.lastUID++
		n.SetName(n.GetGenerateName() + suffix(c.lastUID))
	}
	if n.GetName() == "" {
		return nil, apierrors.NewInvalid(gvk.GroupKind(), "", nil)
	}
	key := client.ObjectKeyFromObject(n)
	if c.objects[gvk][key] != nil {
		return nil, apierrors.NewAlreadyExists(c.resource(gvk), n.GetName())
	}
	if ns, ok := c.objects[corev1.SchemeGroupVersion.WithKind("Namespace")][types.NamespacedName{Name: n.GetNamespace()}]; ok && ns.GetDeletionTimestamp() != nil {
		err := apierrors.NewForbidden(c.resource(gvk), n.GetName(), fmt.Errorf("unable to create new content in namespace %s because it is being terminated", n.GetNamespace()))
		err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause, Message: "namespace " + n.GetNamespace() + " is being terminated", Field: "metadata.namespace"}}
		return nil, err
	}
	n.SetUID(c.newUID())
	n.SetCreationTimestamp(metav1.NewTime(time.Now().Truncate(time.Second)))
	n.SetDeletionTimestamp(nil)
	n.SetGeneration(1)
	copyStatus(n, nil)
	switch t := n.(type) {
	case *corev1.Pod:
		t.Status.Phase = corev1.PodPending
	case *corev1.Namespace:
		t.Status.Phase = corev1.NamespaceActive
		if len(t.Spec.Finalizers) == 0 {
			t.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
		}
	}
	c.store(gvk, n)
	return n, nil
}

func suffix(n uint64) string {
	const letters = "bcdfghjklmnpqrstvwxz2456789"
	out := make([]byte, 5)
	for i := range out {
		out[i] = letters[n%uint64(len(letters))]
		n /= uint64(len(letters))
	}
	return string(out)
}

// replace is the end of update and patch: n takes the place of cur.
func (c *Cluster) replace(gvk schema.GroupVersionKind, cur, n client.Object, subresource string) (client.Object, error) {
	if v := n.GetResourceVersion(); v != "" && v != cur.GetResourceVersion() {
		return nil, apierrors.NewConflict(c.resource(gvk), n.GetName(), fmt.Errorf("the object has been modified; please apply your changes to the latest version and try again"))
	}
	if uid := n.GetUID(); uid != "" && uid != cur.GetUID() {
		return nil, apierrors.NewConflict(c.resource(gvk), n.GetName(), fmt.Errorf("Precondition failed: UID in precondition: %s, UID in object meta: %s", uid, cur.GetUID()))
	}
	switch subresource {
	case "status", "approval":
		merged := cur.DeepCopyObject().(client.Object)
		copyStatus(merged, n)
		n = merged
	case "finalize":
		merged := cur.DeepCopyObject().(*corev1.Namespace)
		merged.Spec.Finalizers = n.(*corev1.Namespace).Spec.Finalizers
		n = merged
	default:
		copyStatus(n, cur)
		if ns, ok := n.(*corev1.Namespace); ok {
			ns.Spec.Finalizers = cur.(*corev1.Namespace).Spec.Finalizers
		}
	}
	n.SetUID(cur.GetUID())
	n.SetCreationTimestamp(cur.GetCreationTimestamp())
	n.SetDeletionTimestamp(cur.GetDeletionTimestamp())
	n.SetDeletionGracePeriodSeconds(cur.GetDeletionGracePeriodSeconds())
	n.SetGeneration(cur.GetGeneration())
	n.SetResourceVersion(cur.GetResourceVersion())
	if same(cur, n) {
		return cur, nil
	}
	if generationChanged(cur, n) {
		n.SetGeneration(cur.GetGeneration() + 1)
	}
	if n.GetDeletionTimestamp() != nil && len(n.GetFinalizers()) == 0 && !c.graceful(n) && !c.heldNamespace(n) {
		c.remove(gvk, n)
		return n, nil
	}
	c.store(gvk, n)
	return n, nil
}

func (c *Cluster) heldNamespace(o client.Object) bool {
	ns, ok := o.(*corev1.Namespace)
	return ok && len(ns.Spec.Finalizers) > 0
}

func (c *Cluster) graceful(o client.Object) bool {
	g := o.GetDeletionGracePeriodSeconds()
	_, ok := o.(*corev1.Pod)
	return ok && c.GracefulPods && g != nil && *g > 0
}

func (c *Cluster) delete(gvk schema.GroupVersionKind, key types.NamespacedName, o client.DeleteOptions) error {
	cur, ok := c.objects[gvk][key]
	if !ok {
		return apierrors.NewNotFound(c.resource(gvk), key.Name)
	}
	if p := o.Preconditions; p != nil {
		if p.UID != nil && *p.UID != cur.GetUID() {
			return apierrors.NewConflict(c.resource(gvk), key.Name, fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *p.UID, cur.GetUID()))
		}
		if p.ResourceVersion != nil && *p.ResourceVersion != cur.GetResourceVersion() {
			return apierrors.NewConflict(c.resource(gvk), key.Name, fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *p.ResourceVersion, cur.GetResourceVersion()))
		}
	}
	n := cur.DeepCopyObject().(client.Object)
	if p := o.PropagationPolicy; p != nil {
		f := slices.DeleteFunc(n.GetFinalizers(), func(s string) bool {
			return s == metav1.FinalizerOrphanDependents || s == metav1.FinalizerDeleteDependents
		})
		switch *p {
		case metav1.DeletePropagationOrphan:
			f = append(f, metav1.FinalizerOrphanDependents)
		case metav1.DeletePropagationForeground:
			f = append(f, metav1.FinalizerDeleteDependents)
		}
		n.SetFinalizers(f)
	}
	var grace int64
	if pod, ok := n.(*corev1.Pod); ok && c.GracefulPods && pod.Spec.NodeName != "" {
		grace = 30
		if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
			grace = *s
		}
		if o.GracePeriodSeconds != nil {
			grace = *o.GracePeriodSeconds
		}
		if g := cur.GetDeletionGracePeriodSeconds(); g != nil {
			grace = min(grace, *g)
		}
	}
	if ns, ok := n.(*corev1.Namespace); ok {
		ns.Status.Phase = corev1.NamespaceTerminating
	}
	if len(n.GetFinalizers()) == 0 && grace == 0 && !c.heldNamespace(n) {
		c.remove(gvk, n)
		return nil
	}
	if n.GetDeletionTimestamp() == nil {
		t := metav1.NewTime(time.Now().Add(time.Duration(grace) * time.Second).Truncate(time.Second))
		n.SetDeletionTimestamp(&t)
		n.SetGeneration(n.GetGeneration() + 1)
	}
	n.SetDeletionGracePeriodSeconds(&grace)
	if !same(cur, n) {
		c.store(gvk, n)
	}
	return nil
}

// finishPod ends a pod's graceful deletion.
func (c *Cluster) finishPod(p *corev1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	gvk := corev1.SchemeGroupVersion.WithKind("Pod")
	key := client.ObjectKeyFromObject(p)
	cur, ok := c.objects[gvk][key]
	if !ok || cur.GetUID() != p.UID || !c.graceful(cur) {
		return
	}
	zero := int64(0)
	if err := c.delete(gvk, key, client.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		panic(err) // it exists, and nothing is conditional
	}
}

// setPodStatus stores a pod's status, unless the pod is gone.
func (c *Cluster) setPodStatus(p *corev1.Pod, s *corev1.PodStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	gvk := corev1.SchemeGroupVersion.WithKind("Pod")
	cur, ok := c.objects[gvk][client.ObjectKeyFromObject(p)]
	if !ok || cur.GetUID() != p.UID {
		return
	}
	n := cur.DeepCopyObject().(*corev1.Pod)
	n.Status = *s
	if _, err := c.replace(gvk, cur, n, "status"); err != nil {
		panic(err) // its version is the current one
	}
}
