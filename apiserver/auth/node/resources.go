package node

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// decide says whether a node may, and if so, of which kind the object asked for is that it must have to do with; or else why not.
type decide func(node string, attrs authorizer.Attributes) (of kind, may bool, reason string)

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
	{Group: "certificates.k8s.io", Resource: "podcertificaterequests"}: func(string, authorizer.Attributes) (kind, bool, string) { return unrelated, false, "" },
}

func is(attrs authorizer.Attributes, verbs ...string) bool {
	return slices.Contains(verbs, attrs.GetVerb())
}

// reading allows to get, list and watch single objects of a namespace.
func reading(k kind) decide {
	return func(_ string, attrs authorizer.Attributes) (kind, bool, string) {
		switch {
		case !is(attrs, "get", "list", "watch"):
			return unrelated, false, "can only read resources of this type"
		case attrs.GetSubresource() != "":
			return unrelated, false, "cannot read subresource"
		case attrs.GetNamespace() == "":
			return unrelated, false, "can only read namespaced object of this type"
		}
		return k, true, ""
	}
}

func getting(k kind) decide {
	return func(_ string, attrs authorizer.Attributes) (kind, bool, string) {
		switch {
		case !is(attrs, "get"):
			return unrelated, false, "can only get individual resources of this type"
		case attrs.GetSubresource() != "":
			return unrelated, false, "cannot get subresource"
		}
		return k, true, ""
	}
}

func claim(node string, attrs authorizer.Attributes) (kind, bool, string) {
	if attrs.GetSubresource() != "status" {
		return getting(claims)(node, attrs)
	}
	if !is(attrs, "update", "patch") {
		return unrelated, false, "can only get/update/patch this type"
	}
	return claims, true, ""
}

func account(node string, attrs authorizer.Attributes) (kind, bool, string) {
	switch {
	case is(attrs, "get") && attrs.GetSubresource() == "":
		return reading(accounts)(node, attrs)
	case !is(attrs, "create") || attrs.GetName() == "":
		return unrelated, false, "can only create tokens for individual service accounts"
	case attrs.GetSubresource() != "token":
		return unrelated, false, "can only create token subresource of serviceaccount"
	}
	return accounts, true, ""
}

// itself: that a node writes no other Node is seen to by NodeRestriction.
func itself(node string, attrs authorizer.Attributes) (kind, bool, string) {
	switch sub := attrs.GetSubresource(); {
	case sub == "" && is(attrs, "create", "update", "patch"), sub == "status" && is(attrs, "update", "patch"):
		return unrelated, true, ""
	case sub == "" && is(attrs, "get", "list", "watch"):
		switch name := attrs.GetName(); name {
		case node:
			return unrelated, true, ""
		case "":
			return unrelated, false, fmt.Sprintf("node '%s' cannot read all nodes, only its own Node object", node)
		default:
			return unrelated, false, fmt.Sprintf("node '%s' cannot read '%s', only its own Node object", node, name)
		}
	}
	return unrelated, false, ""
}

// pod: that a node writes no other node's pods is seen to by NodeRestriction.
func pod(node string, attrs authorizer.Attributes) (kind, bool, string) {
	switch sub := attrs.GetSubresource(); {
	case sub == "" && is(attrs, "get"):
		return pods, true, ""
	case sub == "" && is(attrs, "list", "watch"):
		switch {
		case selects(attrs, "spec.nodeName", node):
			return unrelated, true, ""
		case attrs.GetName() != "":
			return pods, true, ""
		}
		return unrelated, false, "can only list/watch pods with spec.nodeName field selector"
	case sub == "" && is(attrs, "create", "delete"), sub == "status" && is(attrs, "update", "patch"), sub == "eviction" && is(attrs, "create"):
		return unrelated, true, ""
	}
	return unrelated, false, ""
}

func lease(node string, attrs authorizer.Attributes) (kind, bool, string) {
	switch {
	case !is(attrs, "get", "create", "update", "patch", "delete"):
		return unrelated, false, "can only get, create, update, patch, or delete a node lease"
	case attrs.GetNamespace() != corev1.NamespaceNodeLease:
		return unrelated, false, fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
	case !is(attrs, "create") && attrs.GetName() != node:
		return unrelated, false, "can only access node lease with the same name as the requesting node"
	}
	return unrelated, true, ""
}

func csiNode(node string, attrs authorizer.Attributes) (kind, bool, string) {
	switch {
	case attrs.GetSubresource() != "":
		return unrelated, false, "cannot authorize CSINode subresources"
	case !is(attrs, "get", "create", "update", "patch", "delete"):
		return unrelated, false, "can only get, create, update, patch, or delete a CSINode"
	case !is(attrs, "create") && attrs.GetName() != node:
		return unrelated, false, "can only access CSINode with the same name as the requesting node"
	}
	return unrelated, true, ""
}

// slice: a node cleans up behind its drivers. Those publish by accounts of their own.
func slice(node string, attrs authorizer.Attributes) (kind, bool, string) {
	switch {
	case attrs.GetSubresource() != "":
		return unrelated, false, "cannot authorize ResourceSlice subresources"
	case !is(attrs, "list", "watch", "deletecollection"):
		return unrelated, false, "only the following verbs are allowed for a ResourceSlice: list, watch, deletecollection"
	case !selects(attrs, "spec.nodeName", node):
		return unrelated, false, "can only list/watch/deletecollection resourceslices with nodeName field selector"
	}
	return unrelated, true, ""
}
