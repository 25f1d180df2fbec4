package decisions

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
	componentconfig "k8s.io/component-base/config"
	"k8s.io/klog/v2"
	kubescheduler "k8s.io/kubernetes/pkg/scheduler"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/validation"

	"github.com/keelson/keelson/scheduler/config"
)

// configurations are bodies of files: what kube-scheduler takes Keelson takes, and what it refuses Keelson refuses.
var configurations = []string{
	"",
	"parallelism: 0",
	"parallelism: 4\npercentageOfNodesToScore: 100",
	"percentageOfNodesToScore: 101",
	"podInitialBackoffSeconds: 0",
	"podInitialBackoffSeconds: 3\npodMaxBackoffSeconds: 2",
	"podInitialBackoffSeconds: 3\npodMaxBackoffSeconds: 30",
	"leaderElection: {leaderElect: false, leaseDuration: 1s}",
	"leaderElection: {leaseDuration: 1s}",
	"leaderElection: {resourceLock: configmaps}",
	"leaderElection: {leaseDuration: 40s, renewDeadline: 30s, retryPeriod: 5s, resourceName: mine, resourceNamespace: there}",
	"clientConnection: {qps: 7, burst: 9, contentType: application/json}",
	"clientConnection: {burst: -1}",
	"delayCacheUntilActive: true",
	"noSuchField: 1",
	"profiles: [{schedulerName: a}, {schedulerName: b}]",
	"profiles: [{schedulerName: a}, {schedulerName: a}]",
	"profiles: [{schedulerName: ''}]",
	"profiles: [{percentageOfNodesToScore: -1}]",
	"profiles: [{plugins: {score: {disabled: [{name: '*'}], enabled: [{name: ImageLocality, weight: 4}]}}}]",
	"profiles: [{plugins: {score: {enabled: [{name: NodeName}]}}}]",
	"profiles: [{plugins: {filter: {enabled: [{name: Unknown}]}}}]",
	"profiles: [{plugins: {filter: {enabled: [{name: NodeName}, {name: NodeName}]}}}]",
	"profiles: [{plugins: {multiPoint: {enabled: [{name: NodeName}, {name: NodeName}]}}}]",
	"profiles: [{plugins: {bind: {disabled: [{name: '*'}]}}}]",
	"profiles: [{plugins: {queueSort: {disabled: [{name: '*'}]}}}]",
	"profiles: [{plugins: {multiPoint: {disabled: [{name: '*'}]}}}]",
	"profiles: [{plugins: {multiPoint: {disabled: [{name: NodePorts}, {name: ImageLocality}]}}}]",
	"profiles: [{plugins: {filter: {enabled: [{name: NodePorts}]}, multiPoint: {enabled: [{name: TaintToleration, weight: 9}]}}}]",
	"profiles: [{plugins: {filter: {enabled: [{name: EBSLimits}]}}}]",
	"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: Wrong}}}]}]",
	"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: RequestedToCapacityRatio}}}]}]",
	"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: LeastAllocated, resources: [{name: cpu, weight: 101}]}}}]}]",
	"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {ignoredResources: ['bad name']}}]}]",
	"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {ignoredResourceGroups: ['example.com/x']}}]}]",
	"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {noSuch: 1}}]}]",
	"profiles: [{pluginConfig: [{name: NodeResourcesBalancedAllocation, args: {resources: [{name: cpu, weight: 2}]}}]}]",
	"profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}]}]",
	"profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 100}}]}]",
	"profiles: [{pluginConfig: [{name: InterPodAffinity, args: {}}, {name: InterPodAffinity, args: {}}]}]",
	"profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultingType: System, defaultConstraints: [{maxSkew: 1, topologyKey: a, whenUnsatisfiable: ScheduleAnyway}]}}]}]",
	"profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [{maxSkew: 0, topologyKey: a, whenUnsatisfiable: ScheduleAnyway}]}}]}]",
	"profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [{maxSkew: 1, topologyKey: a, whenUnsatisfiable: ScheduleAnyway, labelSelector: {}}]}}]}]",
	"profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [{maxSkew: 1, topologyKey: a, whenUnsatisfiable: ScheduleAnyway}, {maxSkew: 2, topologyKey: a, whenUnsatisfiable: ScheduleAnyway}]}}]}]",
	"profiles: [{pluginConfig: [{name: NodeAffinity, args: {addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: []}}}}]}]",
	"profiles: [{pluginConfig: [{name: VolumeBinding, args: {bindTimeoutSeconds: -1}}]}]",
	"profiles: [{pluginConfig: [{name: VolumeBinding, args: {bindTimeoutSeconds: 5, shape: [{utilization: 50, score: 1}, {utilization: 10, score: 1}]}}]}]",
	"profiles: [{pluginConfig: [{name: DefaultPreemption, args: {minCandidateNodesPercentage: 0, minCandidateNodesAbsolute: 0}}]}]",
	"profiles: [{pluginConfig: [{name: DefaultPreemption, args: {minCandidateNodesPercentage: 20}}]}]",
	"extenders: [{urlPrefix: 'http://x', prioritizeVerb: p}]",
	"extenders: [{urlPrefix: 'http://x', prioritizeVerb: p, weight: 2}]",
	"extenders: [{urlPrefix: 'http://x', bindVerb: b}, {urlPrefix: 'http://y', bindVerb: b}]",
	"extenders: [{urlPrefix: 'http://x', filterVerb: f, managedResources: [{name: cpu}]}]",
	"extenders: [{urlPrefix: 'http://x', filterVerb: f, managedResources: [{name: example.com/foo, ignoredByScheduler: true}]}]",
}

// TestConfigurations reads files by kube-scheduler's loader, and starts it with them, and by Keelson's: the same are good, and say the same.
func TestConfigurations(t *testing.T) {
	for i, body := range configurations {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			file := []byte("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n" + body + "\n")
			theirs, want := read(file)
			ours, err := config.Read(file, config.Options{})
			if (err == nil) != (want == nil) {
				t.Fatalf("%s\nkube-scheduler says %v, Keelson %v", body, want, err)
			}
			if err != nil {
				return
			}
			s := ours.Scheduler
			if s.InitialBackoff.Seconds() != float64(theirs.PodInitialBackoffSeconds) || s.MaxBackoff.Seconds() != float64(theirs.PodMaxBackoffSeconds) ||
				ours.DelayCacheUntilActive != theirs.DelayCacheUntilActive || len(s.Extenders) != len(theirs.Extenders) || len(s.Profiles) != len(theirs.Profiles) {
				t.Errorf("%s\nkube-scheduler reads %+v, Keelson %+v", body, theirs, ours)
			}
			for k := range s.Profiles {
				if s.Profiles[k].Name != theirs.Profiles[k].SchedulerName {
					t.Errorf("profile %d is %s, want %s", k, s.Profiles[k].Name, theirs.Profiles[k].SchedulerName)
				}
			}
			le, cc := ours.LeaderElection, ours.ClientConnection
			if diff := cmp.Diff(theirs.LeaderElection, componentconfig.LeaderElectionConfiguration{
				LeaderElect: *le.LeaderElect, LeaseDuration: le.LeaseDuration, RenewDeadline: le.RenewDeadline, RetryPeriod: le.RetryPeriod,
				ResourceLock: le.ResourceLock, ResourceName: le.ResourceName, ResourceNamespace: le.ResourceNamespace,
			}); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(fmt.Sprint(theirs.ClientConnection), fmt.Sprint(cc)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// read is what kube-scheduler does with a file before it runs.
func read(file []byte) (*schedulerconfig.KubeSchedulerConfiguration, error) {
	obj, err := runtime.Decode(scheme.Codecs.UniversalDecoder(), file)
	if err != nil {
		return nil, err
	}
	cfg := obj.(*schedulerconfig.KubeSchedulerConfiguration)
	if err := validation.ValidateKubeSchedulerConfiguration(cfg); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), klog.Logger{}))
	defer cancel()
	c := fake.NewClientset()
	f := informers.NewSharedInformerFactory(c, 0)
	newInformers(f)
	_, err = kubescheduler.New(ctx, c, f, nil, func(string) events.EventRecorderLogger { return &events.FakeRecorder{} },
		kubescheduler.WithProfiles(cfg.Profiles...), kubescheduler.WithExtenders(cfg.Extenders...), kubescheduler.WithParallelism(cfg.Parallelism))
	return cfg, err
}
