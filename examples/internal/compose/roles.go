package compose

import (
	"context"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

const bootstrappers = "system:bootstrappers"

// Joining is who a machine is until the cluster has signed its certificate: it may ask for one and do nothing else.
func Joining() user.Info { return component("system:bootstrap:keelson", bootstrappers) }

// letNodesJoin permits what a machine needs to become a node, and what a node's proxy and DNS do beside its kubelet.
func letNodesJoin(ctx context.Context, c client.Client) error {
	const csr = "system:certificates.k8s.io:certificatesigningrequests:"
	for _, b := range []struct{ name, group, role string }{
		{"keelson:node-bootstrap", bootstrappers, "system:node-bootstrapper"},
		{"keelson:node-autoapprove-bootstrap", bootstrappers, csr + "nodeclient"},
		{"keelson:node-autoapprove-renewal", user.NodesGroup, csr + "selfnodeclient"},
		{"keelson:node-proxier", user.NodesGroup, "system:node-proxier"},
	} {
		binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: b.name}}
		if _, err := controllerutil.CreateOrUpdate(ctx, c, binding, func() error {
			binding.RoleRef = rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: b.role}
			binding.Subjects = []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: b.group}}
			return nil
		}); err != nil {
			return fmt.Errorf("ClusterRoleBinding %s: %w", b.name, err)
		}
	}
	const dns = "keelson:node-dns"
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: dns}}
	if _, err := controllerutil.CreateOrUpdate(ctx, c, role, func() error {
		role.Rules = []rbacv1.PolicyRule{{Verbs: []string{"get", "create", "update"}, APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}}}
		return nil
	}); err != nil {
		return fmt.Errorf("role %s: %w", dns, err)
	}
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: dns}}
	_, err := controllerutil.CreateOrUpdate(ctx, c, binding, func() error {
		binding.RoleRef = rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: dns}
		binding.Subjects = []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: user.NodesGroup}}
		return nil
	})
	if err != nil {
		return fmt.Errorf("RoleBinding %s: %w", dns, err)
	}
	return nil
}
