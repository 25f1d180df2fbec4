package rbac

import (
	"slices"
	"sort"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// rule is a PolicyRule in the form that decisions need.
type rule struct {
	verbs     []string
	anyVerb   bool
	groups    []string
	anyGroup  bool
	resources []string
	anyThing  bool
	names     []string
	urls      []string
}

func compile(rules []rbacv1.PolicyRule) *compiledRole {
	role := &compiledRole{rules: rules, compiled: make([]rule, len(rules))}
	for i := range rules {
		r := &rules[i]
		role.compiled[i] = rule{
			verbs: r.Verbs, anyVerb: slices.Contains(r.Verbs, rbacv1.VerbAll),
			groups: r.APIGroups, anyGroup: slices.Contains(r.APIGroups, rbacv1.APIGroupAll),
			resources: r.Resources, anyThing: slices.Contains(r.Resources, rbacv1.ResourceAll),
			names: r.ResourceNames, urls: r.NonResourceURLs,
		}
	}
	return role
}

// grant is one rule that holds, and the binding it comes from.
type grant struct {
	rule   *rule
	origin string
}

// target is what a rule can name without wildcards.
type target struct{ group, resource, subresource string }

// scope is what holds cluster-wide, or in one namespace.
type scope struct {
	policy  []rbacv1.PolicyRule
	missing []error
	// byTarget has the grants that name a target outright, wide those with a wildcard for group or resource, urls those of paths.
	byTarget map[target][]*grant
	wide     []*grant
	urls     []*grant
}

func (s *scope) init() { s.byTarget = map[target][]*grant{} }

func (s *scope) add(g *grant) {
	r := g.rule
	if len(r.urls) > 0 {
		s.urls = append(s.urls, g)
	}
	if len(r.resources) == 0 {
		return
	}
	wide := r.anyGroup || r.anyThing
	for _, resource := range r.resources {
		wide = wide || strings.HasPrefix(resource, "*/")
	}
	if wide {
		s.wide = append(s.wide, g)
		return
	}
	for _, group := range r.groups {
		for _, resource := range r.resources {
			name, sub, cut := strings.Cut(resource, "/")
			if cut && sub == "" {
				continue // "pods/" names nothing
			}
			t := target{group, name, sub}
			s.byTarget[t] = append(s.byTarget[t], g)
		}
	}
}

// resolved is all that holds for one user of some groups. It is immutable.
type resolved struct {
	groups     []string
	cluster    scope
	namespaces map[string]*scope
}

func (r *resolved) find(attrs authorizer.Attributes) *grant {
	if g := r.cluster.find(attrs); g != nil {
		return g
	}
	if namespace := attrs.GetNamespace(); namespace != "" && len(r.namespaces) > 0 {
		if s := r.namespaces[namespace]; s != nil {
			return s.find(attrs)
		}
	}
	return nil
}

func (s *scope) find(attrs authorizer.Attributes) *grant {
	verb := attrs.GetVerb()
	if !attrs.IsResourceRequest() {
		path := attrs.GetPath()
		for _, g := range s.urls {
			if g.rule.allowsVerb(verb) && g.rule.allowsPath(path) {
				return g
			}
		}
		return nil
	}
	t := target{attrs.GetAPIGroup(), attrs.GetResource(), attrs.GetSubresource()}
	name := attrs.GetName()
	for _, g := range s.byTarget[t] {
		if g.rule.allowsVerb(verb) && g.rule.allowsName(name) {
			return g
		}
	}
	for _, g := range s.wide {
		if g.rule.allowsVerb(verb) && g.rule.allowsTarget(t) && g.rule.allowsName(name) {
			return g
		}
	}
	return nil
}

func (r *rule) allowsVerb(verb string) bool { return r.anyVerb || slices.Contains(r.verbs, verb) }

func (r *rule) allowsName(name string) bool {
	return len(r.names) == 0 || slices.Contains(r.names, name)
}

func (r *rule) allowsPath(path string) bool {
	for _, url := range r.urls {
		if url == rbacv1.NonResourceAll || url == path {
			return true
		}
		if strings.HasSuffix(url, "*") && strings.HasPrefix(path, strings.TrimRight(url, "*")) {
			return true
		}
	}
	return false
}

func (r *rule) allowsTarget(t target) bool {
	if !r.anyGroup && !slices.Contains(r.groups, t.group) {
		return false
	}
	if r.anyThing {
		return true
	}
	for _, resource := range r.resources {
		name, sub, cut := strings.Cut(resource, "/")
		if cut && sub == "" {
			continue
		}
		if sub == t.subresource && (name == t.resource || (name == "*" && sub != "")) {
			return true
		}
	}
	return false
}

// reason tells why nothing allowed a request, if that may be a mistake in the policy.
func (r *resolved) reason(namespace string) string {
	missing := r.cluster.missing
	if s := r.namespaces[namespace]; namespace != "" && s != nil {
		missing = append(slices.Clone(missing), s.missing...)
	}
	if len(missing) == 0 {
		return ""
	}
	texts := make([]string, len(missing))
	for i, err := range missing {
		texts[i] = err.Error()
	}
	slices.Sort(texts)
	texts = slices.Compact(texts)
	if len(texts) == 1 {
		return "RBAC: " + texts[0]
	}
	return "RBAC: [" + strings.Join(texts, ", ") + "]"
}

func sortedKeys(m map[types.NamespacedName]*binding) []types.NamespacedName {
	keys := make([]types.NamespacedName, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool {
		if keys[i].Namespace != keys[j].Namespace {
			return keys[i].Namespace < keys[j].Namespace
		}
		return keys[i].Name < keys[j].Name
	})
	return keys
}

// Rules are policy rules that stand for themselves, without roles and bindings.
type Rules struct{ compiled []rule }

// NewRules returns rules that must not change afterwards.
func NewRules(rules []rbacv1.PolicyRule) *Rules { return &Rules{compile(rules).compiled} }

// Allow reports whether a rule allows a request, whoever makes it.
func (r *Rules) Allow(attrs authorizer.Attributes) bool {
	t := target{attrs.GetAPIGroup(), attrs.GetResource(), attrs.GetSubresource()}
	for i := range r.compiled {
		c := &r.compiled[i]
		switch {
		case !c.allowsVerb(attrs.GetVerb()):
		case !attrs.IsResourceRequest():
			if c.allowsPath(attrs.GetPath()) {
				return true
			}
		case c.allowsTarget(t) && c.allowsName(attrs.GetName()):
			return true
		}
	}
	return false
}
