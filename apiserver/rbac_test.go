package apiserver_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver"
)

// A user may do what a binding allows from the moment that it has been made, and may hand it on.
func TestBindingCountsAtOnce(t *testing.T) {
	ctx := t.Context()
	s := start(t, apiserver.Options{})
	admin := s.Client(&user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup}})
	if err := admin.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}}); err != nil {
		t.Fatal(err)
	}
	bind := func(c client.Client, role, who string) error {
		return c.Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: role + "-" + who},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role},
			Subjects:   []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: who}},
		})
	}
	for i := range 50 {
		role := &rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("r%d", i)},
			Rules: []rbacv1.PolicyRule{
				{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"configmaps"}},
				{Verbs: []string{"create"}, APIGroups: []string{rbacv1.GroupName}, Resources: []string{"rolebindings"}},
			},
		}
		if err := admin.Create(ctx, role); err != nil {
			t.Fatal(err)
		}
		jane, joe := fmt.Sprintf("jane%d", i), fmt.Sprintf("joe%d", i)
		get := func(who string) error {
			return s.Client(&user.DefaultInfo{Name: who}).Get(ctx, client.ObjectKey{Namespace: "default", Name: "c"}, &corev1.ConfigMap{})
		}
		if err := get(jane); !apierrors.IsForbidden(err) {
			t.Fatalf("before she is bound: %v", err)
		}
		if err := bind(admin, role.Name, jane); err != nil {
			t.Fatal(err)
		}
		if err := bind(s.Client(&user.DefaultInfo{Name: jane}), role.Name, joe); err != nil {
			t.Fatalf("handed on: %v", err)
		}
		if err := get(joe); err != nil {
			t.Fatal(err)
		}
	}
}
