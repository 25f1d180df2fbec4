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

// decide says why not, or of which kind the object asked for is that the node must have to do with.
type decide func(node string, attrs authorizer.Attributes) (kind, string)

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
	{Group: "resource.k8s.io", Resource: "resourceclaims"}:             getting(resourceClaims),
	{Group: "resource.k8s.io", Resource: "resourceslices"}:             slice,
	{Group: "certificates.k8s.io", Resource: "podcertificaterequests"}: func(string, authorizer.Attributes) (kind, string) { return unrelated, noReason },
}

func is(attrs authorizer.Attributes, verbs ...string) bool {
	return slices.Contains(verbs, attrs.GetVerb())
}

// reading allows to get, list and watch single objects of a namespace.
func reading(k kind) decide {
	return func(_ string, attrs authorizer.Attributes) (kind, string) {
		switch {
		case !is(attrs, "get", "list", "watch"):
			return unrelated, "can only read resources of this type"
		case attrs.GetSubresource() != "":
			return unrelated, "cannot read subresource"
		case attrs.GetNamespace() == "":
			return unrelated, "can only read namespaced object of this type"
		}
		return k, yes
	}
}

func getting(k kind) decide {
	return func(_ string, attrs authorizer.Attributes) (kind, string) {
		switch {
		case !is(attrs, "get"):
			return unrelated, "can only get individual resources of this type"
		case attrs.GetSubresource() != "":
			return unrelated, "cannot get subresource"
		}
		return k, yes
	}
}

func claim(node string, attrs authorizer.Attributes) (kind, string) {
	if attrs.GetSubresource() != "status" {
		return getting(claims)(node, attrs)
	}
	if !is(attrs, "update", "patch") {
		return unrelated, "can only get/update/patch this type"
	}
	return claims, yes
}

func account(node string, attrs authorizer.Attributes) (kind, string) {
	switch {
	case is(attrs, "get") && attrs.GetSubresource() == "":
		return reading(accounts)(node, attrs)
	case !is(attrs, "create") || attrs.GetName() == "":
		return unrelated, "can only create tokens for individual service accounts"
	case attrs.GetSubresource() != "token":
		return unrelated, "can only create token subresource of serviceaccount"
	}
	return accounts, yes
}

// itself: that a node writes no other Node is seen to by NodeRestriction.
func itself(node string, attrs authorizer.Attributes) (kind, string) {
	switch sub := attrs.GetSubresource(); {
	case sub == "" && is(attrs, "create", "update", "patch"), sub == "status" && is(attrs, "update", "patch"):
		return unrelated, yes
	case sub == "" && is(attrs, "get", "list", "watch"):
		switch name := attrs.GetName(); name {
		case node:
			return unrelated, yes
		case "":
			return unrelated, fmt.Sprintf("node '%s' cannot read all nodes, only its own Node object", node)
		default:
			return unrelated, fmt.Sprintf("node '%s' cannot read '%s', only its own Node object", node, name)
		}
	}
	return unrelated, noReason
}

// pod: that a node writes no other node's pods is seen to by NodeRestriction.
func pod(node string, attrs authorizer.Attributes) (kind, string) {
	switch sub := attrs.GetSubresource(); {
	case sub == "" && is(attrs, "get"):
		return pods, yes
	case sub == "" && is(attrs, "list", "watch"):
		switch {
		case selects(attrs, "spec.nodeName", node):
			return unrelated, yes
		case attrs.GetName() != "":
			return pods, yes
		}
		return unrelated, "can only list/watch pods with spec.nodeName field selector"
	case sub == "" && is(attrs, "create", "delete"), sub == "status" && is(attrs, "update", "patch"), sub == "eviction" && is(attrs, "create"):
		return unrelated, yes
	}
	return unrelated, noReason
}

func lease(node string, attrs authorizer.Attributes) (kind, string) {
	switch {
	case !is(attrs, "get", "create", "update", "patch", "delete"):
		return unrelated, "can only get, create, update, patch, or delete a node lease"
	case attrs.GetNamespace() != corev1.NamespaceNodeLease:
		return unrelated, fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
	case !is(attrs, "create") && attrs.GetName() != node:
		return unrelated, "can only access node lease with the same name as the requesting node"
	}
	return unrelated, yes
}

func csiNode(node string, attrs authorizer.Attributes) (kind, string) {
	switch {
	case attrs.GetSubresource() != "":
		return unrelated, "cannot authorize CSINode subresources"
	case !is(attrs, "get", "create", "update", "patch", "delete"):
		return unrelated, "can only get, create, update, patch, or delete a CSINode"
	case !is(attrs, "create") && attrs.GetName() != node:
		return unrelated, "can only access CSINode with the same name as the requesting node"
	}
	return unrelated, yes
}

// slice: a node cleans up behind its drivers. Those publish by accounts of their own.
func slice(node string, attrs authorizer.Attributes) (kind, string) {
	switch {
	case attrs.GetSubresource() != "":
		return unrelated, "cannot authorize ResourceSlice subresources"
	case !is(attrs, "list", "watch", "deletecollection"):
		return unrelated, "only the following verbs are allowed for a ResourceSlice: list, watch, deletecollection"
	case !selects(attrs, "spec.nodeName", node):
		return unrelated, "can only list/watch/deletecollection resourceslices with nodeName field selector"
	}
	return unrelated, yes
}
