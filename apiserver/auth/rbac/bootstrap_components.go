package rbac

import rbacv1 "k8s.io/api/rbac/v1"

// NodeRules are what kubelets need; the NodeRestriction admission plugin narrows their writes to their own objects.
func NodeRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		on("create", "authentication.k8s.io", "tokenreviews"),
		on("create", "authorization.k8s.io", "subjectaccessreviews,localsubjectaccessreviews"),
		on(read, "", "services"),
		on("create,get,list,watch", "", "nodes"),
		on("update,patch", "", "nodes/status"),
		on("update,patch", "", "nodes"),
		events(),
		on(read, "", "pods"),
		on("create,delete", "", "pods"),
		on("update,patch", "", "pods/status"),
		on("create", "", "pods/eviction"),
		on("get,list,watch", "", "secrets,configmaps"),
		on("get", "", "persistentvolumeclaims,persistentvolumes"),
		on("get", "", "endpoints"),
		on("create,get,list,watch", "certificates.k8s.io", "certificatesigningrequests"),
		on("get,create,update,patch,delete", "coordination.k8s.io", "leases"),
		on("get", "storage.k8s.io", "volumeattachments"),
		on("create", "", "serviceaccounts/token"),
		on("get,update,patch", "", "persistentvolumeclaims/status"),
		on(read, "storage.k8s.io", "csidrivers"),
		on("get,create,update,patch,delete", "storage.k8s.io", "csinodes"),
		on(read, "node.k8s.io", "runtimeclasses"),
		on("get", "", "serviceaccounts"),
	}
}

func componentRoles() []*rbacv1.ClusterRole {
	return []*rbacv1.ClusterRole{
		clusterRole("system:heapster",
			on(read, "", "events,pods,nodes,namespaces"),
			on(read, "extensions", "deployments")),
		clusterRole("system:node", NodeRules()...),
		clusterRole("system:node-problem-detector", on("get", "", "nodes"), on("patch", "", "nodes/status"), events()),
		clusterRole("system:kubelet-api-admin",
			on(read, "", "nodes"),
			on("proxy", "", "nodes"),
			on("*", "", "nodes/proxy,nodes/metrics,nodes/stats,nodes/log,nodes/configz,nodes/healthz,nodes/pods")),
		clusterRole("system:node-bootstrapper", on("create,get,list,watch", "certificates.k8s.io", "certificatesigningrequests")),
		clusterRole("system:auth-delegator",
			on("create", "authentication.k8s.io", "tokenreviews"),
			on("create", "authorization.k8s.io", "subjectaccessreviews")),
		clusterRole("system:kube-aggregator", on(read, "", "services,endpoints")),
		clusterRole("system:kube-controller-manager",
			events(),
			on("create", "coordination.k8s.io", "leases"),
			on("get,update", "coordination.k8s.io", "leases", "kube-controller-manager"),
			on("create", "", "secrets,serviceaccounts"),
			on("delete", "", "secrets"),
			on("get", "", "configmaps,namespaces,secrets,serviceaccounts"),
			on("update", "", "secrets,serviceaccounts"),
			on("create", "authentication.k8s.io", "tokenreviews"),
			on("create", "authorization.k8s.io", "subjectaccessreviews"),
			on("list,watch", "*", "*"),
			on("create", "", "serviceaccounts/token")),
		clusterRole("system:kube-dns", on("list,watch", "", "endpoints,services")),
		clusterRole("system:persistent-volume-provisioner",
			on("create,delete,get,list,watch", "", "persistentvolumes"),
			on("get,list,update,watch", "", "persistentvolumeclaims"),
			on(read, "storage.k8s.io", "storageclasses"),
			on("watch", "", "events"),
			events()),
		clusterRole("system:kube-scheduler",
			events(),
			on("create", "coordination.k8s.io", "leases"),
			on("get,list,update,watch", "coordination.k8s.io", "leases", "kube-scheduler"),
			on(readWrite, "coordination.k8s.io", "leasecandidates"),
			on(read, "", "nodes"),
			on("delete,get,list,watch", "", "pods"),
			on("create", "", "bindings,pods/binding"),
			on("patch,update", "", "pods/status"),
			on("update", "", "pods/finalizers"),
			on(read, "", "replicationcontrollers,services"),
			on(read, "apps,extensions", "replicasets"),
			on(read, "apps", "statefulsets"),
			on(read, "policy", "poddisruptionbudgets"),
			on(read, "", "persistentvolumeclaims,persistentvolumes"),
			on("create", "authentication.k8s.io", "tokenreviews"),
			on("create", "authorization.k8s.io", "subjectaccessreviews"),
			on(read, "storage.k8s.io", "csinodes,csidrivers,csistoragecapacities,volumeattachments"),
			on(read, "resource.k8s.io", "deviceclasses,resourceclaims,resourceslices"),
			on(read, "", "namespaces"),
			on(read, "scheduling.k8s.io", "podgroups"),
			on("patch,update", "scheduling.k8s.io", "podgroups/status")),
		clusterRole("system:volume-scheduler",
			on("get,list,patch,update,watch", "", "persistentvolumes"),
			on(read, "storage.k8s.io", "storageclasses"),
			on("get,list,patch,update,watch", "", "persistentvolumeclaims")),
		clusterRole("system:node-proxier",
			on("list,watch", "", "endpoints,services"),
			on("get,list,watch", "", "nodes"),
			on("list,watch", "discovery.k8s.io", "endpointslices"),
			on("list,watch", "networking.k8s.io", "servicecidrs"),
			events()),
	}
}

func certificateRoles() []*rbacv1.ClusterRole {
	const group = "certificates.k8s.io"
	approver := func(name, signer string) *rbacv1.ClusterRole {
		return clusterRole("system:certificates.k8s.io:"+name, on("approve", group, "signers", signer))
	}
	return []*rbacv1.ClusterRole{
		clusterRole("system:certificates.k8s.io:certificatesigningrequests:nodeclient", on("create", group, "certificatesigningrequests/nodeclient")),
		clusterRole("system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", on("create", group, "certificatesigningrequests/selfnodeclient")),
		approver("legacy-unknown-approver", "kubernetes.io/legacy-unknown"),
		approver("kubelet-serving-approver", "kubernetes.io/kubelet-serving"),
		approver("kube-apiserver-client-approver", "kubernetes.io/kube-apiserver-client"),
		approver("kube-apiserver-client-kubelet-approver", "kubernetes.io/kube-apiserver-client-kubelet"),
	}
}
