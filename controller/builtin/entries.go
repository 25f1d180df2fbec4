package builtin

import (
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/controller/certificates"
	"github.com/keelson/keelson/controller/clusterroleaggregation"
	"github.com/keelson/keelson/controller/cronjob"
	"github.com/keelson/keelson/controller/daemonset"
	"github.com/keelson/keelson/controller/deployment"
	"github.com/keelson/keelson/controller/disruption"
	"github.com/keelson/keelson/controller/endpoints"
	"github.com/keelson/keelson/controller/endpointslice"
	"github.com/keelson/keelson/controller/garbagecollector"
	"github.com/keelson/keelson/controller/job"
	"github.com/keelson/keelson/controller/namespace"
	"github.com/keelson/keelson/controller/nodeipam"
	"github.com/keelson/keelson/controller/nodelifecycle"
	"github.com/keelson/keelson/controller/persistentvolume"
	"github.com/keelson/keelson/controller/podgc"
	"github.com/keelson/keelson/controller/replicaset"
	"github.com/keelson/keelson/controller/resourcequota"
	"github.com/keelson/keelson/controller/rootca"
	"github.com/keelson/keelson/controller/serviceaccount"
	"github.com/keelson/keelson/controller/statefulset"
	"github.com/keelson/keelson/controller/tainteviction"
	"github.com/keelson/keelson/controller/ttlafterfinished"
	"github.com/keelson/keelson/controller/volumeprotection"
)

// entries are all controllers, by their names in kube-controller-manager.
func entries() []entry {
	return []entry{
		{name: "deployment-controller", new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
			return deployment.New(c, cc, deployment.Options{Common: o.Common})
		}},
		{name: "replicaset-controller", new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
			return replicaset.New(c, cc, replicaset.Options{Common: o.Common})
		}},
		{name: "endpointslice-controller", new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
			return endpointslice.New(c, cc, endpointslice.Options{Common: o.Common})
		}},
		{name: "statefulset-controller", new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
			return statefulset.New(c, cc, statefulset.Options{Common: o.Common})
		}},
		{name: "daemonset-controller", new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
			return daemonset.New(c, cc, daemonset.Options{Common: o.Common})
		}},
		{name: "cronjob-controller", new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
			return cronjob.New(c, cc, cronjob.Options{Common: o.Common})
		}},
		{name: "ttl-after-finished-controller", new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
			return ttlafterfinished.New(c, cc, ttlafterfinished.Options{Common: o.Common})
		}},
		{name: "job-controller", new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
			return job.New(c, cc, job.Options{Common: o.Common})
		}},
		{name: "endpoints-controller", new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
			return endpoints.New(c, cc, endpoints.Options{Common: o.Common})
		}},
		{name: "node-lifecycle-controller", new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
			return nodelifecycle.New(c, cc, nodelifecycle.Options{Common: o.Common, GracePeriod: o.NodeGracePeriod})
		}},
		{name: "taint-eviction-controller", new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
			return tainteviction.New(c, cc, tainteviction.Options{Common: o.Common})
		}},
		{name: "pod-garbage-collector-controller", new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
			return podgc.New(c, cc, podgc.Options{Common: o.Common})
		}},
		{name: "persistentvolume-binder-controller", new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
			return persistentvolume.New(c, cc, persistentvolume.Options{Common: o.Common})
		}},
		{
			// In kube-controller-manager these are two, for claims and volumes.
			name: "persistentvolumeclaim-protection-controller",
			new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
				return volumeprotection.New(c, cc, volumeprotection.Options{Common: o.Common})
			},
		},
		{name: "disruption-controller", new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
			return disruption.New(c, cc, disruption.Options{Common: o.Common})
		}},
		{name: "namespace-controller", new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
			return namespace.New(c, cc, namespace.Options{Common: o.Common, Resources: o.Resources})
		}},
		{name: "garbage-collector-controller", new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
			return garbagecollector.New(c, cc, garbagecollector.Options{Common: o.Common, Resources: o.Resources})
		}},
		{name: "resourcequota-controller", new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
			return resourcequota.New(c, cc, resourcequota.Options{Common: o.Common, Resources: o.Resources})
		}},
		{name: "clusterrole-aggregation-controller", new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
			return clusterroleaggregation.New(c, cc, clusterroleaggregation.Options{Common: o.Common})
		}},
		{name: "serviceaccount-controller", new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
			return serviceaccount.New(c, cc, serviceaccount.Options{Common: o.Common})
		}},
		{
			name: "root-ca-certificate-publisher-controller",
			unmet: func(o Options) string {
				if len(o.RootCA) == 0 {
					return "RootCA"
				}
				return ""
			},
			new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
				return rootca.New(c, cc, rootca.Options{Common: o.Common, CA: o.RootCA})
			},
		},
		{
			// In kube-controller-manager these are three, to approve, sign and clean.
			name: "certificatesigningrequest-controller",
			unmet: func(o Options) string {
				switch {
				case o.SigningCert == nil:
					return "SigningCert"
				case o.SigningKey == nil:
					return "SigningKey"
				}
				return ""
			},
			new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
				return certificates.New(c, cc, certificates.Options{Common: o.Common, CA: o.SigningCert, Key: o.SigningKey, ApproveKubeletServing: o.ApproveKubeletServing})
			},
		},
		{
			name: "node-ipam-controller",
			unmet: func(o Options) string {
				if len(o.ClusterCIDRs) == 0 {
					return "ClusterCIDRs"
				}
				return ""
			},
			new: func(c client.WithWatch, cc cache.Cache, o Options) (runnable, error) {
				return nodeipam.New(c, cc, nodeipam.Options{
					Common: o.Common, ClusterCIDRs: o.ClusterCIDRs, NodeMaskIPv4: o.NodeMaskIPv4, NodeMaskIPv6: o.NodeMaskIPv6,
				})
			},
		},
	}
}
