package rbac

import (
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// policy is every policy object, with the bindings indexed by whom they bind. Roles have no namespace if they are ClusterRoles.
type policy struct {
	clusterRoles map[string]*compiledRole
	roles        map[types.NamespacedName]*compiledRole
	bindings     map[types.NamespacedName]*binding
	// bySubject has the bindings of each user and group.
	bySubject map[subject]map[types.NamespacedName]*binding
}

// subject is a user or a group; service accounts are users.
type subject struct {
	group bool
	name  string
}

// binding is a RoleBinding, or a ClusterRoleBinding if the namespace of its key is empty.
type binding struct {
	key      types.NamespacedName
	ref      rbacv1.RoleRef
	subjects map[subject]rbacv1.Subject
}

type compiledRole struct {
	rules    []rbacv1.PolicyRule
	compiled []rule
}

func newPolicy() policy {
	return policy{
		clusterRoles: map[string]*compiledRole{},
		roles:        map[types.NamespacedName]*compiledRole{},
		bindings:     map[types.NamespacedName]*binding{},
		bySubject:    map[subject]map[types.NamespacedName]*binding{},
	}
}

func (p *policy) set(obj client.Object) bool {
	switch o := obj.(type) {
	case *rbacv1.ClusterRole:
		p.clusterRoles[o.Name] = compile(o.Rules)
	case *rbacv1.Role:
		p.roles[key(o)] = compile(o.Rules)
	case *rbacv1.ClusterRoleBinding:
		p.bind(types.NamespacedName{Name: o.Name}, o.RoleRef, o.Subjects)
	case *rbacv1.RoleBinding:
		p.bind(key(o), o.RoleRef, o.Subjects)
	default:
		return false
	}
	return true
}

func (p *policy) remove(obj client.Object) bool {
	switch o := obj.(type) {
	case *rbacv1.ClusterRole:
		delete(p.clusterRoles, o.Name)
	case *rbacv1.Role:
		delete(p.roles, key(o))
	case *rbacv1.ClusterRoleBinding:
		p.unbind(types.NamespacedName{Name: o.Name})
	case *rbacv1.RoleBinding:
		p.unbind(key(o))
	default:
		return false
	}
	return true
}

func (p *policy) bind(k types.NamespacedName, ref rbacv1.RoleRef, subjects []rbacv1.Subject) {
	p.unbind(k)
	b := &binding{key: k, ref: ref, subjects: map[subject]rbacv1.Subject{}}
	for _, s := range subjects {
		who, ok := subjectOf(s, k.Namespace)
		if !ok {
			continue
		}
		if _, ok := b.subjects[who]; !ok {
			b.subjects[who] = s
		}
		if p.bySubject[who] == nil {
			p.bySubject[who] = map[types.NamespacedName]*binding{}
		}
		p.bySubject[who][k] = b
	}
	p.bindings[k] = b
}

func (p *policy) unbind(k types.NamespacedName) {
	b := p.bindings[k]
	if b == nil {
		return
	}
	for who := range b.subjects {
		delete(p.bySubject[who], k)
		if len(p.bySubject[who]) == 0 {
			delete(p.bySubject, who)
		}
	}
	delete(p.bindings, k)
}

// subjectOf finds whom a subject of a binding in namespace is.
func subjectOf(s rbacv1.Subject, namespace string) (subject, bool) {
	switch s.Kind {
	case rbacv1.UserKind:
		return subject{name: s.Name}, true
	case rbacv1.GroupKind:
		return subject{group: true, name: s.Name}, true
	case rbacv1.ServiceAccountKind:
		if s.Namespace != "" {
			namespace = s.Namespace
		}
		if namespace == "" {
			return subject{}, false
		}
		return subject{name: serviceaccount.MakeUsername(namespace, s.Name)}, true
	default:
		return subject{}, false
	}
}

func (p *policy) role(ref rbacv1.RoleRef, namespace string) *compiledRole {
	switch ref.Kind {
	case "ClusterRole":
		return p.clusterRoles[ref.Name]
	case "Role":
		return p.roles[types.NamespacedName{Namespace: namespace, Name: ref.Name}]
	default:
		return nil
	}
}

func notFound(ref rbacv1.RoleRef) error {
	resource := "clusterroles"
	if ref.Kind == "Role" {
		resource = "roles"
	}
	// The singular is how the message reads: clusterrole.rbac.authorization.k8s.io "x" not found.
	return apierrors.NewNotFound(rbacv1.Resource(resource[:len(resource)-1]), ref.Name)
}

// resolve collects what holds for a user of some groups.
func (p *policy) resolve(name string, groups []string) *resolved {
	r := &resolved{groups: append([]string(nil), groups...), namespaces: map[string]*scope{}}
	r.cluster.init()
	seen := map[types.NamespacedName]bool{}
	p.collect(r, subject{name: name}, seen)
	for _, g := range groups {
		p.collect(r, subject{group: true, name: g}, seen)
	}
	return r
}

func (p *policy) collect(r *resolved, who subject, seen map[types.NamespacedName]bool) {
	bound := p.bySubject[who]
	for _, k := range sortedKeys(bound) {
		if seen[k] {
			continue
		}
		seen[k] = true
		b := bound[k]
		s := &r.cluster
		if k.Namespace != "" {
			if s = r.namespaces[k.Namespace]; s == nil {
				s = &scope{}
				s.init()
				r.namespaces[k.Namespace] = s
			}
		}
		role := p.role(b.ref, k.Namespace)
		if role == nil {
			s.missing = append(s.missing, notFound(b.ref))
			continue
		}
		s.policy = append(s.policy, role.rules...)
		origin := b.describe(who)
		for i := range role.compiled {
			s.add(&grant{rule: &role.compiled[i], origin: origin})
		}
	}
}

// describe is the reason of a decision: which binding allowed something to whom, in the words of Kubernetes.
func (b *binding) describe(who subject) string {
	kind, name := "ClusterRoleBinding", b.key.Name
	if b.key.Namespace != "" {
		kind, name = "RoleBinding", b.key.Name+"/"+b.key.Namespace
	}
	s := b.subjects[who]
	text := s.Name
	if s.Kind == rbacv1.ServiceAccountKind {
		namespace := s.Namespace
		if namespace == "" {
			namespace = b.key.Namespace
		}
		text += "/" + namespace
	}
	return fmt.Sprintf("RBAC: allowed by %s %q of %s %q to %s %q", kind, name, b.ref.Kind, b.ref.Name, s.Kind, text)
}
