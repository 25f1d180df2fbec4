// Package rbac decides requests by role-based access control: Roles, ClusterRoles and their bindings.
//
//	a, err := rbac.New(rbac.Options{})
//	go a.Run(ctx, informers)               // keeps up with the policy objects
//	decision, reason, err := a.Authorize(ctx, attributes)
//
// An Authorizer implements k8s.io/apiserver's Authorizer and RuleResolver. It indexes the bindings by subject, and keeps for each user that
// asked the rules that hold for them, so that a decision takes about a microsecond; any change of a policy object
// drops what was kept.
//
// Reconcile writes the ClusterRoles, Roles and bindings that Kubernetes has from the start, and package aggregation fills the roles that are
// made of others (admin, edit, view).
//
// The package never grants a request by itself but those of group system:masters.
package rbac
