package node

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// yes allows; other texts are the reasons why not, which noReason leaves out.
const (
	yes      = ""
	noReason = "\x00"
)

type decide func(a *Authorizer, node string, attrs authorizer.Attributes) string

// byResource are the resources that are decided by object.
var byResource = map[schema.GroupResource]decide{
	{Resource: "secrets"}:                                              reading(secrets),
	{Resource: "configmaps"}:                                           reading(configMaps),
	{Resource: "persistentvolumeclaims"}:                               claim,
	{Resource: "persistentvolumes"}:                                    getting(volumes),
	{Resource: "serviceaccounts"}:                                      account,
	{Resource: "nodes"}:                                                itself,
	{Resource: "pods"}:                                                 pod,
	{Group: "storage.k8s.io", Resource: "volumeattachments"}:           getting(attachments),
	{Group: "storage.k8s.io", Resource: "csinodes"}:                    csiNode,
	{Group: "coordination.k8s.io", Resource: "leases"}:                 lease,
	{Group: "certificates.k8s.io", Resource: "podcertificaterequests"}: func(*Authorizer, string, authorizer.Attributes) string { return noReason },
}

func is(attrs authorizer.Attributes, verbs ...string) bool {
	return slices.Contains(verbs, attrs.GetVerb())
}

// reading allows to get, list and watch single objects of a namespace.
func reading(k kind) decide {
	return func(a *Authorizer, node string, attrs authorizer.Attributes) string {
		switch {
		case !is(attrs, "get", "list", "watch"):
			return "can only read resources of this type"
		case attrs.GetSubresource() != "":
			return "cannot read subresource"
		case attrs.GetNamespace() == "":
			return "can only read namespaced object of this type"
		}
		return a.related(node, k, attrs)
	}
}

func getting(k kind) decide {
	return func(a *Authorizer, node string, attrs authorizer.Attributes) string {
		switch {
		case !is(attrs, "get"):
			return "can only get individual resources of this type"
		case attrs.GetSubresource() != "":
			return "cannot get subresource"
		}
		return a.related(node, k, attrs)
	}
}

func claim(a *Authorizer, node string, attrs authorizer.Attributes) string {
	if attrs.GetSubresource() != "status" {
		return getting(claims)(a, node, attrs)
	}
	if !is(attrs, "update", "patch") {
		return "can only get/update/patch this type"
	}
	return a.related(node, claims, attrs)
}

func account(a *Authorizer, node string, attrs authorizer.Attributes) string {
	switch {
	case is(attrs, "get") && attrs.GetSubresource() == "":
		return reading(accounts)(a, node, attrs)
	case !is(attrs, "create") || attrs.GetName() == "":
		return "can only create tokens for individual service accounts"
	case attrs.GetSubresource() != "token":
		return "can only create token subresource of serviceaccount"
	}
	return a.related(node, accounts, attrs)
}

// itself: that a node writes no other Node is seen to by NodeRestriction.
func itself(_ *Authorizer, node string, attrs authorizer.Attributes) string {
	switch sub := attrs.GetSubresource(); {
	case sub == "" && is(attrs, "create", "update", "patch"), sub == "status" && is(attrs, "update", "patch"):
		return yes
	case sub == "" && is(attrs, "get", "list", "watch"):
		switch name := attrs.GetName(); name {
		case node:
			return yes
		case "":
			return fmt.Sprintf("node '%s' cannot read all nodes, only its own Node object", node)
		default:
			return fmt.Sprintf("node '%s' cannot read '%s', only its own Node object", node, name)
		}
	}
	return noReason
}

// pod: that a node writes no other node's pods is seen to by NodeRestriction.
func pod(a *Authorizer, node string, attrs authorizer.Attributes) string {
	switch sub := attrs.GetSubresource(); {
	case sub == "" && is(attrs, "get"):
		return a.related(node, pods, attrs)
	case sub == "" && is(attrs, "list", "watch"):
		switch {
		case selects(attrs, "spec.nodeName", node):
			return yes
		case attrs.GetName() != "":
			return a.related(node, pods, attrs)
		}
		return "can only list/watch pods with spec.nodeName field selector"
	case sub == "" && is(attrs, "create", "delete"), sub == "status" && is(attrs, "update", "patch"), sub == "eviction" && is(attrs, "create"):
		return yes
	}
	return noReason
}

func lease(_ *Authorizer, node string, attrs authorizer.Attributes) string {
	switch {
	case !is(attrs, "get", "create", "update", "patch", "delete"):
		return "can only get, create, update, patch, or delete a node lease"
	case attrs.GetNamespace() != corev1.NamespaceNodeLease:
		return fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
	case !is(attrs, "create") && attrs.GetName() != node:
		return "can only access node lease with the same name as the requesting node"
	}
	return yes
}

func csiNode(_ *Authorizer, node string, attrs authorizer.Attributes) string {
	switch {
	case attrs.GetSubresource() != "":
		return "cannot authorize CSINode subresources"
	case !is(attrs, "get", "create", "update", "patch", "delete"):
		return "can only get, create, update, patch, or delete a CSINode"
	case !is(attrs, "create") && attrs.GetName() != node:
		return "can only access CSINode with the same name as the requesting node"
	}
	return yes
}
