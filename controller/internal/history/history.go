// Package history keeps the revisions of a workload's template as
// ControllerRevisions, by which StatefulSets and DaemonSets roll and undo.
package history

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller/internal/claim"
	"github.com/keelson/keelson/controller/internal/view"
)

// Keeper keeps the revisions of one workload during one reconciliation.
type Keeper struct {
	Client    client.Client
	Revisions *view.View[*appsv1.ControllerRevision]
	Owner     client.Object
	Kind      schema.GroupVersionKind
	Selector  labels.Selector
	// Hash gives the suffix of a new revision's name, and HashLabel its label.
	Hash      func(data []byte, collisions *int32) string
	HashLabel string
}

// List returns the workload's revisions, oldest first, and adopts orphans.
func (k *Keeper) List(ctx context.Context) ([]*appsv1.ControllerRevision, error) {
	candidates, err := claim.Candidates(ctx, k.Revisions, k.Owner)
	if err != nil {
		return nil, err
	}
	c := claim.Claimer[*appsv1.ControllerRevision]{Client: k.Client, Owner: k.Owner, Kind: k.Kind, Selector: k.Selector}
	owned, err := c.Claim(ctx, candidates)
	Sort(owned)
	return owned, err
}

// Sort orders revisions, oldest first.
func Sort(r []*appsv1.ControllerRevision) {
	slices.SortFunc(r, func(a, b *appsv1.ControllerRevision) int {
		if n := cmp.Compare(a.Revision, b.Revision); n != 0 {
			return n
		}
		if n := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); n != 0 {
			return n
		}
		return cmp.Compare(a.Name, b.Name)
	})
}

// Patch is what a revision stores of a workload: its template, whole.
func Patch(t *corev1.PodTemplateSpec) ([]byte, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	m["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": m}})
}

// Template returns the template that a revision stores.
func Template(r *appsv1.ControllerRevision) (*corev1.PodTemplateSpec, error) {
	var v struct {
		Spec struct {
			Template corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(r.Data.Raw, &v); err != nil {
		return nil, fmt.Errorf("revision %s: %w", r.Name, err)
	}
	return &v.Spec.Template, nil
}

// Apply returns a copy of a workload as it was at a revision.
func Apply[T client.Object](o T, r *appsv1.ControllerRevision) (T, error) {
	var none T
	doc, err := json.Marshal(o)
	if err != nil {
		return none, err
	}
	doc, err = strategicpatch.StrategicMergePatch(doc, r.Data.Raw, o)
	if err != nil {
		return none, fmt.Errorf("revision %s: %w", r.Name, err)
	}
	out, ok := o.DeepCopyObject().(T)
	if !ok {
		return none, fmt.Errorf("%T does not copy to its own type", o)
	}
	// Fields that are absent in the document must not keep what they had.
	clearSpec(out)
	return out, json.Unmarshal(doc, out)
}

func clearSpec(o client.Object) {
	switch t := o.(type) {
	case *appsv1.StatefulSet:
		t.Spec = appsv1.StatefulSetSpec{}
	case *appsv1.DaemonSet:
		t.Spec = appsv1.DaemonSetSpec{}
	}
}

// same says whether a revision stores data, whichever way it is encoded.
func same(r *appsv1.ControllerRevision, data []byte) bool {
	if bytes.Equal(r.Data.Raw, data) {
		return true
	}
	var a, b any
	if json.Unmarshal(r.Data.Raw, &a) != nil || json.Unmarshal(data, &b) != nil {
		return false
	}
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// Ensure returns the revision of the present template: the latest if it is
// that, an older one raised to be the latest, or a new one. It returns all
// revisions again, and the count of collisions.
func (k *Keeper) Ensure(ctx context.Context, all []*appsv1.ControllerRevision, t *corev1.PodTemplateSpec, collisions *int32) (*appsv1.ControllerRevision, []*appsv1.ControllerRevision, *int32, error) {
	data, err := Patch(t)
	if err != nil {
		return nil, nil, nil, err
	}
	next := int64(1)
	if len(all) > 0 {
		next = all[len(all)-1].Revision + 1
	}
	for i, r := range slices.Backward(all) {
		if !same(r, data) {
			continue
		}
		if i == len(all)-1 {
			return r, all, collisions, nil
		}
		raised := r.DeepCopy()
		raised.Revision = next
		if err := k.Client.Update(ctx, raised); err != nil {
			return nil, nil, nil, err
		}
		all = slices.Clone(all)
		all[i] = raised
		Sort(all)
		return raised, all, collisions, nil
	}
	for {
		hash := k.Hash(data, collisions)
		l := maps.Clone(t.Labels)
		if l == nil {
			l = map[string]string{}
		}
		l[k.HashLabel] = hash
		r := &appsv1.ControllerRevision{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: k.Owner.GetNamespace(), Name: revisionName(k.Owner.GetName(), hash), Labels: l, Annotations: maps.Clone(k.Owner.GetAnnotations()),
				OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(k.Owner, k.Kind)},
			},
			Data: runtime.RawExtension{Raw: data}, Revision: next,
		}
		err := k.Client.Create(ctx, r)
		if err == nil {
			return r, append(slices.Clone(all), r), collisions, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, nil, nil, err
		}
		found := &appsv1.ControllerRevision{}
		if err := k.Client.Get(ctx, client.ObjectKeyFromObject(r), found); err != nil {
			return nil, nil, nil, err
		}
		if same(found, data) && metav1.IsControlledBy(found, k.Owner) {
			return found, append(slices.Clone(all), found), collisions, nil
		}
		n := int32(1)
		if collisions != nil {
			n = *collisions + 1
		}
		collisions = &n
	}
}

// revisionName keeps names within their limit.
func revisionName(owner, hash string) string {
	if len(owner) > 223 {
		owner = owner[:223]
	}
	return owner + "-" + hash
}

// Truncate deletes the oldest revisions beyond a limit that are not in use.
func (k *Keeper) Truncate(ctx context.Context, all []*appsv1.ControllerRevision, limit int, used func(*appsv1.ControllerRevision) bool) error {
	unused := slices.DeleteFunc(slices.Clone(all), used)
	for i := 0; i < len(unused)-limit; i++ {
		if err := k.Client.Delete(ctx, unused[i]); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}
