// Package rbac declares the kinds of API group rbac.authorization.k8s.io, version v1: Role, RoleBinding, ClusterRole and
// ClusterRoleBinding.
//
// Nobody may grant more than they hold: with a Policy in Options, writes are refused to users who neither hold
// the permissions that they write, nor the verbs escalate (for roles) or bind (for bindings). The decisions themselves are taken by package
// apiserver/auth/rbac, which implements Policy.
package rbac
