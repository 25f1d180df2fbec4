package core

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// predicate is what a list or watch selects.
type predicate struct {
	namespace, name   string
	prefix            string // of keys
	labels            labels.Selector
	fields            []fieldRequirement
	index, indexValue string
}

type fieldRequirement struct {
	get   func(client.Object) string
	op    selection.Operator
	value string
}

// newPredicate checks the selectors. A namespace that a field selector names narrows t.
func newPredicate(t *Target, o ListOptions) (*predicate, error) {
	p := &predicate{namespace: t.Namespace, name: t.Name}
	if o.LabelSelector != nil && !o.LabelSelector.Empty() {
		p.labels = o.LabelSelector
	}
	if o.FieldSelector != nil && !o.FieldSelector.Empty() {
		if err := p.addFields(t.Resource, o.FieldSelector); err != nil {
			return nil, err
		}
	}
	if !t.Resource.Namespaced {
		p.namespace = ""
	}
	if p.namespace != "" {
		if err := checkSegment("Namespace", p.namespace); err != nil {
			return nil, err
		}
		p.prefix = p.namespace + "/"
	}
	return p, nil
}

func (p *predicate) addFields(r *Resource, s fields.Selector) error {
	k := r.Kind
	for _, q := range s.Requirements() {
		get := k.Fields[q.Field]
		switch q.Field {
		case "metadata.name":
			get = client.Object.GetName
			if q.Operator != selection.NotEquals && p.name == "" && q.Value != "" {
				p.name = q.Value
			}
		case "metadata.namespace":
			get = client.Object.GetNamespace
			if q.Operator != selection.NotEquals && p.namespace == "" && q.Value != "" && checkSegment("Namespace", q.Value) == nil {
				p.namespace = q.Value
			}
		}
		if get == nil {
			if len(k.Fields) > 0 {
				return apierrors.NewBadRequest(fmt.Sprintf("field label not supported: %s", q.Field))
			}
			return apierrors.NewBadRequest(fmt.Sprintf("%q is not a known field selector: only \"metadata.name\", \"metadata.namespace\"", q.Field))
		}
		if q.Operator != selection.NotEquals && p.index == "" && q.Value != "" && r.stored.cache.HasIndex(q.Field) {
			p.index, p.indexValue = q.Field, q.Value
		}
		p.fields = append(p.fields, fieldRequirement{get, q.Operator, q.Value})
	}
	return nil
}

func (p *predicate) everything() bool {
	return p.labels == nil && len(p.fields) == 0 && p.name == ""
}

// matches reports whether the selectors, and the name if there is one, match; not the namespace, unless it is looked at with inScope.
func (p *predicate) matches(o *Object) bool {
	if p.everything() {
		return true
	}
	obj := o.Object()
	if p.name != "" && obj.GetName() != p.name {
		return false
	}
	for _, f := range p.fields {
		if (f.get(obj) == f.value) == (f.op == selection.NotEquals) {
			return false
		}
	}
	return p.labels == nil || p.labels.Matches(labels.Set(obj.GetLabels()))
}

// inScope reports whether the object is in the namespace.
func (p *predicate) inScope(o *Object) bool {
	k := o.Key()
	return len(k) >= len(p.prefix) && k[:len(p.prefix)] == p.prefix
}

func validateListOptions(o ListOptions, watch bool) field.ErrorList {
	if watch && o.Continue != "" {
		return field.ErrorList{field.Forbidden(field.NewPath("resourceVersionMatch"), "resourceVersionMatch is forbidden when continue is provided")}
	}
	if o.ResourceVersionMatch == "" && o.SendInitialEvents == nil {
		return nil
	}
	return validation.ValidateListOptions(&internalversion.ListOptions{
		ResourceVersion: o.ResourceVersion, ResourceVersionMatch: o.ResourceVersionMatch, Continue: o.Continue,
		Watch: watch, SendInitialEvents: o.SendInitialEvents, AllowWatchBookmarks: o.AllowWatchBookmarks,
	}, true)
}

// Selection is a checked selection of objects, for readers of the object cache.
type Selection struct{ p *predicate }

// Select checks the selectors of o. Errors are those of List.
func (c *Core) Select(t Target, o ListOptions) (*Selection, error) {
	p, err := newPredicate(&t, o)
	if err != nil {
		return nil, err
	}
	return &Selection{p}, nil
}

// Matches reports whether an object of the resource is selected.
func (s *Selection) Matches(o *Object) bool { return s.p.inScope(o) && s.p.matches(o) }

// Index returns the index and value that everything selected is under; empty if there is none.
func (s *Selection) Index() (name, value string) { return s.p.index, s.p.indexValue }
