package scheduler

import (
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// owners knows what Services and controllers select, by namespace and name.
type owners struct {
	services map[string]map[string]labels.Set // the inner key is the name
	// controllers' requirements, by kind, namespace and name
	controllers map[controllerKey]labels.Requirements
	lent        bool
}

type controllerKey struct {
	kind schema.GroupKind
	name types.NamespacedName
}

var (
	replicationControllers = schema.GroupKind{Kind: "ReplicationController"}
	replicaSets            = schema.GroupKind{Group: appsv1.GroupName, Kind: "ReplicaSet"}
	statefulSets           = schema.GroupKind{Group: appsv1.GroupName, Kind: "StatefulSet"}
)

func newOwners() owners {
	return owners{services: map[string]map[string]labels.Set{}, controllers: map[controllerKey]labels.Requirements{}}
}

func (o *owners) fork() owners {
	o.lent = true
	return *o
}

// unshare is called before anything changes.
func (o *owners) unshare() *owners {
	if !o.lent {
		return o
	}
	services := make(map[string]map[string]labels.Set, len(o.services))
	for ns, of := range o.services {
		services[ns] = maps.Clone(of)
	}
	*o = owners{services: services, controllers: maps.Clone(o.controllers)}
	return o
}

// SetService adds or replaces a Service: its pods are spread by default.
func (e *Engine) SetService(obj *corev1.Service) {
	o := e.view.owners.unshare()
	of := o.services[obj.Namespace]
	if of == nil {
		of = map[string]labels.Set{}
		o.services[obj.Namespace] = of
	}
	of[obj.Name] = obj.Spec.Selector
}

// DeleteService forgets a Service.
func (e *Engine) DeleteService(namespace, name string) {
	o := e.view.owners.unshare()
	of := o.services[namespace]
	if delete(of, name); len(of) == 0 {
		delete(o.services, namespace)
	}
}

// SetReplicationController adds or replaces a ReplicationController: its pods are spread by default, as are those of the others below.
func (e *Engine) SetReplicationController(obj *corev1.ReplicationController) {
	e.setController(replicationControllers, obj, labels.SelectorFromSet(obj.Spec.Selector))
}

// SetReplicaSet adds or replaces a ReplicaSet.
func (e *Engine) SetReplicaSet(obj *appsv1.ReplicaSet) {
	e.setController(replicaSets, obj, selector(obj.Spec.Selector))
}

// SetStatefulSet adds or replaces a StatefulSet.
func (e *Engine) SetStatefulSet(obj *appsv1.StatefulSet) {
	e.setController(statefulSets, obj, selector(obj.Spec.Selector))
}

func (e *Engine) setController(kind schema.GroupKind, obj metav1.Object, sel labels.Selector) {
	reqs, _ := sel.Requirements()
	e.view.owners.unshare().controllers[controllerKey{kind, types.NamespacedName{Namespace: obj.GetNamespace(), Name: obj.GetName()}}] = reqs
}

// DeleteReplicationController forgets a ReplicationController.
func (e *Engine) DeleteReplicationController(namespace, name string) {
	e.deleteController(replicationControllers, namespace, name)
}

// DeleteReplicaSet forgets a ReplicaSet.
func (e *Engine) DeleteReplicaSet(namespace, name string) {
	e.deleteController(replicaSets, namespace, name)
}

// DeleteStatefulSet forgets a StatefulSet.
func (e *Engine) DeleteStatefulSet(namespace, name string) {
	e.deleteController(statefulSets, namespace, name)
}

func (e *Engine) deleteController(kind schema.GroupKind, namespace, name string) {
	delete(e.view.owners.unshare().controllers, controllerKey{kind, types.NamespacedName{Namespace: namespace, Name: name}})
}

// Siblings selects the pods that belong to the same Services and the same controller as pod; ok is false if it belongs to none.
func (v *View) Siblings(pod *Pod) (siblings PodSelector, ok bool) {
	obj := pod.Object
	set := labels.Set{}
	for _, sel := range v.owners.services[obj.Namespace] {
		if len(sel) > 0 && sel.AsSelectorPreValidated().Matches(labels.Set(obj.Labels)) {
			maps.Copy(set, sel) // they all match the pod, so they agree
		}
	}
	var more labels.Requirements
	if ref := metav1.GetControllerOfNoCopy(obj); ref != nil {
		if gv, err := schema.ParseGroupVersion(ref.APIVersion); err == nil {
			key := controllerKey{gv.WithKind(ref.Kind).GroupKind(), types.NamespacedName{Namespace: obj.Namespace, Name: ref.Name}}
			if more = v.owners.controllers[key]; key.kind == replicationControllers {
				for _, r := range more { // each is for one value; where Services say otherwise, the controller's counts
					set[r.Key()], _ = r.Values().PopAny()
				}
				more = nil
			}
		}
	}
	sel := set.AsSelectorPreValidated()
	if len(more) > 0 {
		sel = sel.Add(more...)
	}
	if sel.Empty() {
		return PodSelector{}, false
	}
	siblings = PodSelector{Namespaces: []string{obj.Namespace}, Labels: sel, Live: true}
	siblings.identify()
	return siblings, true
}
