package rbac

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AutoUpdateAnnotation on a bootstrap object, set to "false", keeps Reconcile away from it.
const AutoUpdateAnnotation = rbacv1.AutoUpdateAnnotationKey

const (
	bootstrapLabel = "kubernetes.io/bootstrapping"
	bootstrapValue = "rbac-defaults"

	aggregateToAdmin = "rbac.authorization.k8s.io/aggregate-to-admin"
	aggregateToEdit  = "rbac.authorization.k8s.io/aggregate-to-edit"
	aggregateToView  = "rbac.authorization.k8s.io/aggregate-to-view"
)

// Verbs that go together.
const (
	read      = "get,list,watch"
	write     = "create,delete,deletecollection,patch,update"
	readWrite = "create,delete,deletecollection,get,list,patch,update,watch"
)

// Bootstrap is the policy that a new cluster starts with.
type Bootstrap struct {
	ClusterRoles        []*rbacv1.ClusterRole
	ClusterRoleBindings []*rbacv1.ClusterRoleBinding
	Roles               []*rbacv1.Role
	RoleBindings        []*rbacv1.RoleBinding
}

// BootstrapOptions choose among the policies of Kubernetes.
type BootstrapOptions struct {
	// NodesByRole binds role system:node to group system:nodes. Without it, a node authorizer must say what nodes may do.
	NodesByRole bool
}

// BootstrapPolicy returns the roles and bindings that Kubernetes has from the start. Each call makes new objects.
func BootstrapPolicy(opts BootstrapOptions) Bootstrap {
	var b Bootstrap
	for _, part := range [][]*rbacv1.ClusterRole{userRoles(), aggregatedRoles(), componentRoles(), certificateRoles()} {
		b.ClusterRoles = append(b.ClusterRoles, part...)
	}
	b.ClusterRoleBindings = clusterBindings(opts)
	for _, c := range controllers() {
		name := "system:controller:" + c.name
		b.ClusterRoles = append(b.ClusterRoles, clusterRole(name, c.rules...))
		b.ClusterRoleBindings = append(b.ClusterRoleBindings, clusterBinding(name, name, account(metav1.NamespaceSystem, c.name)))
	}
	b.Roles, b.RoleBindings = namespacedPolicy()
	return b
}

// list takes a text apart; the parts are in order, as those of kube-apiserver's own policy are.
func list(s string) []string {
	parts := strings.Split(s, ",")
	slices.Sort(parts)
	return parts
}

// on is a rule for resources; verbs, groups and resources are separated by commas, and the core group is "".
func on(verbs, groups, resources string, names ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{
		Verbs: list(verbs), APIGroups: list(groups), Resources: list(resources), ResourceNames: names,
	}
}

func urls(verbs string, paths ...string) rbacv1.PolicyRule {
	slices.Sort(paths)
	return rbacv1.PolicyRule{Verbs: list(verbs), NonResourceURLs: paths}
}

func events() rbacv1.PolicyRule { return on("create,patch,update", ",events.k8s.io", "events") }

func meta(namespace, name string, labels ...string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{
		Namespace: namespace, Name: name,
		Labels:      map[string]string{bootstrapLabel: bootstrapValue},
		Annotations: map[string]string{AutoUpdateAnnotation: "true"},
	}
	for _, l := range labels {
		m.Labels[l] = "true"
	}
	return m
}

func clusterRole(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: meta("", name), Rules: rules}
}

func clusterBinding(name, role string, subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta("", name), Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
	}
}

func group(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: name}
}

func userNamed(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}
}

func account(namespace, name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}
}

func userRoles() []*rbacv1.ClusterRole {
	return []*rbacv1.ClusterRole{
		clusterRole("cluster-admin", on("*", "*", "*"), urls("*", "*")),
		clusterRole("system:discovery", urls("get",
			"/livez", "/readyz", "/healthz", "/version", "/version/",
			"/openapi", "/openapi/*", "/api", "/api/*", "/apis", "/apis/*")),
		clusterRole("system:monitoring", on("get", "", "nodes/metrics"), urls("get",
			"/metrics", "/metrics/slis", "/livez", "/readyz", "/healthz", "/livez/*", "/readyz/*", "/healthz/*", "/statusz", "/flagz")),
		clusterRole("system:basic-user",
			on("create", "authorization.k8s.io", "selfsubjectaccessreviews,selfsubjectrulesreviews"),
			on("create", "authentication.k8s.io", "selfsubjectreviews")),
		clusterRole("system:public-info-viewer", urls("get", "/livez", "/readyz", "/healthz", "/version", "/version/")),
		clusterRole("system:service-account-issuer-discovery", urls("get",
			"/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks", "/openid/v1/jwks/")),
	}
}

// aggregatedRoles are admin, edit and view, and the parts they are made of; custom resources add parts by label.
func aggregatedRoles() []*rbacv1.ClusterRole {
	whole := func(name, selects string, labels ...string) *rbacv1.ClusterRole {
		return &rbacv1.ClusterRole{
			ObjectMeta: meta("", name, labels...),
			AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
				{MatchLabels: map[string]string{selects: "true"}},
			}},
		}
	}
	part := func(name, label string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
		return &rbacv1.ClusterRole{ObjectMeta: meta("", name, label), Rules: rules}
	}
	return []*rbacv1.ClusterRole{
		whole("admin", aggregateToAdmin),
		whole("edit", aggregateToEdit, aggregateToAdmin),
		whole("view", aggregateToView, aggregateToEdit),
		part("system:aggregate-to-admin", aggregateToAdmin,
			on("create", "authorization.k8s.io", "localsubjectaccessreviews"),
			on(readWrite, "rbac.authorization.k8s.io", "roles,rolebindings")),
		part("system:aggregate-to-edit", aggregateToEdit,
			on(read, "", "pods/attach,pods/proxy,pods/exec,pods/portforward,secrets,services/proxy"),
			on("impersonate", "", "serviceaccounts"),
			on(write, "", "pods,pods/attach,pods/proxy,pods/exec,pods/portforward"),
			on("create", "", "pods/eviction"),
			on(write, "", "replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/proxy,persistentvolumeclaims,configmaps,secrets,events"),
			on("create", "", "serviceaccounts/token"),
			on(write, "apps", "statefulsets,statefulsets/scale,daemonsets,deployments,deployments/scale,deployments/rollback,replicasets,replicasets/scale"),
			on(write, "autoscaling", "horizontalpodautoscalers"),
			on(write, "batch", "jobs,cronjobs"),
			on(write, "extensions", "daemonsets,deployments,deployments/scale,deployments/rollback,ingresses,replicasets,replicasets/scale,replicationcontrollers/scale,networkpolicies"),
			on(write, "policy", "poddisruptionbudgets"),
			on(write, "resource.k8s.io", "resourceclaims,resourceclaimtemplates"),
			on(write, "scheduling.k8s.io", "workloads,podgroups"),
			on(write, "networking.k8s.io", "networkpolicies,ingresses"),
			on(readWrite, "coordination.k8s.io", "leases"),
			on(write, "events.k8s.io", "events")),
		part("system:aggregate-to-view", aggregateToView,
			on(read, "", "pods,pods/status,replicationcontrollers,replicationcontrollers/scale,replicationcontrollers/status,serviceaccounts,services,services/status,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,configmaps"),
			on(read, "", "limitranges,resourcequotas,resourcequotas/status,bindings,events,pods/log,namespaces/status"),
			on(read, "", "namespaces"),
			on(read, "discovery.k8s.io", "endpointslices"),
			on(read, "apps", "controllerrevisions,statefulsets,statefulsets/status,statefulsets/scale,daemonsets,daemonsets/status,deployments,deployments/status,deployments/scale,replicasets,replicasets/status,replicasets/scale"),
			on(read, "autoscaling", "horizontalpodautoscalers,horizontalpodautoscalers/status"),
			on(read, "batch", "jobs,jobs/status,cronjobs,cronjobs/status"),
			on(read, "extensions", "daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,ingresses,ingresses/status,replicasets,replicasets/scale,replicasets/status,replicationcontrollers/scale,networkpolicies"),
			on(read, "policy", "poddisruptionbudgets,poddisruptionbudgets/status"),
			on(read, "resource.k8s.io", "resourceclaims,resourceclaims/status,resourceclaimtemplates"),
			on(read, "scheduling.k8s.io", "workloads,podgroups,podgroups/status"),
			on(read, "networking.k8s.io", "networkpolicies,ingresses,ingresses/status"),
			on(read, "events.k8s.io", "events")),
	}
}

func clusterBindings(opts BootstrapOptions) []*rbacv1.ClusterRoleBinding {
	node := clusterBinding("system:node", "system:node")
	if opts.NodesByRole {
		node.Subjects = []rbacv1.Subject{group("system:nodes")}
	}
	same := func(name string, subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
		return clusterBinding(name, name, subjects...)
	}
	return []*rbacv1.ClusterRoleBinding{
		same("cluster-admin", group("system:masters")),
		same("system:monitoring", group("system:monitoring")),
		same("system:discovery", group("system:authenticated")),
		same("system:basic-user", group("system:authenticated")),
		same("system:public-info-viewer", group("system:authenticated"), group("system:unauthenticated")),
		same("system:node-proxier", userNamed("system:kube-proxy")),
		same("system:kube-controller-manager", userNamed("system:kube-controller-manager")),
		same("system:kube-dns", account(metav1.NamespaceSystem, "kube-dns")),
		same("system:kube-scheduler", userNamed("system:kube-scheduler")),
		same("system:volume-scheduler", userNamed("system:kube-scheduler")),
		same("system:service-account-issuer-discovery", group("system:serviceaccounts")),
		node,
	}
}

func namespacedPolicy() ([]*rbacv1.Role, []*rbacv1.RoleBinding) {
	role := func(namespace, name string, rules ...rbacv1.PolicyRule) *rbacv1.Role {
		return &rbacv1.Role{ObjectMeta: meta(namespace, name), Rules: rules}
	}
	binding := func(namespace, name, role string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{
			ObjectMeta: meta(namespace, name), Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role},
		}
	}
	lock := func(name string) *rbacv1.Role {
		return role(metav1.NamespaceSystem, "system::leader-locking-"+name, on("create,get,list,update,watch", "coordination.k8s.io", "leases,leasecandidates"))
	}
	const signer, cleaner, cloud = "system:controller:bootstrap-signer", "system:controller:token-cleaner", "system:controller:cloud-provider"
	const scheduler, manager = "system:kube-scheduler", "system:kube-controller-manager"
	roles := []*rbacv1.Role{
		role(metav1.NamespaceSystem, "extension-apiserver-authentication-reader",
			on("get,list,watch", "", "configmaps", "extension-apiserver-authentication")),
		role(metav1.NamespaceSystem, signer, on(read, "", "secrets")),
		role(metav1.NamespaceSystem, cloud, on("create,get,list,watch", "", "configmaps")),
		role(metav1.NamespaceSystem, cleaner, on("get,list,watch,delete", "", "secrets"), events()),
		lock("kube-controller-manager"),
		lock("kube-scheduler"),
		role(metav1.NamespacePublic, signer, on(read, "", "configmaps"), on("update", "", "configmaps", "cluster-info"), events()),
	}
	bindings := []*rbacv1.RoleBinding{
		binding(metav1.NamespaceSystem, "system::extension-apiserver-authentication-reader", "extension-apiserver-authentication-reader", userNamed(manager), userNamed(scheduler)),
		binding(metav1.NamespaceSystem, "system::leader-locking-kube-controller-manager", "system::leader-locking-kube-controller-manager", userNamed(manager), account(metav1.NamespaceSystem, "kube-controller-manager"), account(metav1.NamespaceSystem, "leader-election-controller")),
		binding(metav1.NamespaceSystem, "system::leader-locking-kube-scheduler", "system::leader-locking-kube-scheduler", userNamed(scheduler), account(metav1.NamespaceSystem, "kube-scheduler")),
		binding(metav1.NamespaceSystem, signer, signer, account(metav1.NamespaceSystem, "bootstrap-signer")),
		binding(metav1.NamespaceSystem, cloud, cloud, account(metav1.NamespaceSystem, "cloud-provider")),
		binding(metav1.NamespaceSystem, cleaner, cleaner, account(metav1.NamespaceSystem, "token-cleaner")),
		binding(metav1.NamespacePublic, signer, signer, account(metav1.NamespaceSystem, "bootstrap-signer")),
	}
	return roles, bindings
}
