package decisions

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
	componentconfig "k8s.io/component-base/config"
	"k8s.io/klog/v2"
	configv1 "k8s.io/kube-scheduler/config/v1"
	kubescheduler "k8s.io/kubernetes/pkg/scheduler"
	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
	configconvert "k8s.io/kubernetes/pkg/scheduler/apis/config/v1"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/validation"
	"k8s.io/utils/ptr"

	"github.com/keelson/keelson/scheduler"
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
	"profiles: [{plugins: {filter: {disabled: [{name: '*'}], enabled: [{name: NodeResourcesFit}, {name: NodeName}]}}}]",
	"profiles: [{plugins: {filter: {enabled: [{name: InterPodAffinity}, {name: NodeName}]}}}]",
	"profiles: [{plugins: {filter: {disabled: [{name: NodeName}, {name: TaintToleration}], enabled: [{name: TaintToleration}, {name: NodeName}]}}}]",
	"profiles: [{plugins: {preFilter: {enabled: [{name: InterPodAffinity}, {name: VolumeBinding}]}}}]",
	"profiles: [{plugins: {preFilter: {disabled: [{name: '*'}]}}}]",
	"profiles: [{plugins: {preFilter: {disabled: [{name: '*'}], enabled: [{name: VolumeBinding}, {name: NodeAffinity}]}, filter: {disabled: [{name: NodePorts}]}}}]",
	"profiles: [{plugins: {preFilter: {enabled: [{name: ImageLocality}]}}}]",
	"profiles: [{plugins: {filter: {disabled: [{name: NodeAffinity}]}, score: {disabled: [{name: NodeAffinity}]}}}]",
	"profiles: [{plugins: {preScore: {disabled: [{name: '*'}]}}}]",
	"profiles: [{plugins: {preScore: {enabled: [{name: VolumeBinding}, {name: TaintToleration}]}}}]",
	"profiles: [{plugins: {preScore: {enabled: [{name: ImageLocality}]}}}]",
	"profiles: [{plugins: {score: {disabled: [{name: NodeResourcesFit}]}, preScore: {disabled: [{name: NodeResourcesFit}]}}}]",
	"profiles: [{plugins: {score: {disabled: [{name: NodeResourcesFit}], enabled: [{name: NodeResourcesFit, weight: 9}]}}}]",
	"profiles: [{plugins: {score: {enabled: [{name: NodeResourcesFit, weight: 9}, {name: ImageLocality}]}}}]",
	"profiles: [{plugins: {score: {enabled: [{name: TaintToleration}]}, multiPoint: {enabled: [{name: TaintToleration, weight: 7}, {name: NodeAffinity}]}}}]",
	"profiles: [{plugins: {multiPoint: {enabled: [{name: NodeResourcesFit, weight: 5}]}}}]",
	"profiles: [{plugins: {multiPoint: {disabled: [{name: NodeResourcesFit}], enabled: [{name: NodeResourcesFit, weight: 5}]}}}]",
	"profiles: [{plugins: {multiPoint: {disabled: [{name: '*'}], enabled: [{name: PrioritySort}, {name: DefaultBinder}, {name: ImageLocality}, {name: NodeResourcesFit}, {name: NodeName}]}}}]",
	"profiles: [{plugins: {multiPoint: {disabled: [{name: '*'}], enabled: [{name: PrioritySort}, {name: ImageLocality}]}, bind: {enabled: [{name: DefaultBinder}]}}}]",
	"profiles: [{plugins: {multiPoint: {disabled: [{name: '*'}]}, queueSort: {enabled: [{name: PrioritySort}]}, bind: {enabled: [{name: DefaultBinder}]}, score: {enabled: [{name: ImageLocality, weight: 2}]}, filter: {enabled: [{name: NodeName}]}}}]",
	"profiles: [{plugins: {multiPoint: {disabled: [{name: VolumeBinding}]}, reserve: {enabled: [{name: VolumeBinding}]}}}]",
	"profiles: [{plugins: {reserve: {disabled: [{name: VolumeBinding}]}, preBind: {disabled: [{name: VolumeBinding}]}}}]",
	"profiles: [{plugins: {preBind: {enabled: [{name: NodeName}]}}}]",
	"profiles: [{plugins: {preEnqueue: {disabled: [{name: '*'}]}}}]",
	"profiles: [{plugins: {preEnqueue: {enabled: [{name: DefaultPreemption}, {name: SchedulingGates}]}}}]",
	"profiles: [{plugins: {preEnqueue: {enabled: [{name: NodeName}]}}}]",
	"profiles: [{plugins: {postFilter: {disabled: [{name: DefaultPreemption}]}}}]",
	"profiles: [{plugins: {postFilter: {enabled: [{name: DefaultPreemption}]}}}]",
	"profiles: [{plugins: {permit: {enabled: [{name: NodeName}]}}}]",
	"profiles: [{plugins: {queueSort: {enabled: [{name: PrioritySort}]}}}]",
	"profiles: [{plugins: {queueSort: {enabled: [{name: NodeName}]}}}]",
	"profiles: [{plugins: {bind: {enabled: [{name: DefaultBinder}]}}}]",
	"profiles: [{plugins: {bind: {enabled: [{name: NodeName}]}}}]",
	"profiles: [{schedulerName: a, plugins: {score: {disabled: [{name: '*'}]}}}, {schedulerName: b, plugins: {filter: {disabled: [{name: '*'}]}}}]",
	"profiles: [{schedulerName: a, plugins: {queueSort: {enabled: [{name: PrioritySort}]}}}, {schedulerName: b}]",
	"profiles: [{plugins: {filter: {disabled: [{name: Unknown}]}, multiPoint: {disabled: [{name: Unknown}]}}}]",
	"profiles: [{plugins: {multiPoint: {enabled: [{name: Unknown}]}}}]",
	"profiles: [{plugins: {filter: {disabled: [{name: NodeName}], enabled: [{name: NodeName}, {name: ImageLocality}]}}}]",
	"profiles: [{plugins: {score: {disabled: [{name: '*'}], enabled: [{name: ImageLocality}, {name: ImageLocality}]}}}]",
	"profiles: [{plugins: {score: {disabled: [{name: '*'}], enabled: [{name: VolumeBinding, weight: 3}, {name: TaintToleration, weight: 1}]}, placementScore: {disabled: [{name: '*'}]}}}]",
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

// aboutField is where kube-scheduler says which plugin something is wrong with, and Keelson which field, and the value that is printed by an internal type's
// names. (What it says of plugins that were removed has the internal type's empty version.)
var aboutField = regexp.MustCompile(`^initializing profiles: creating profile for scheduler name [^:]*: (initializing plugin "[^"]*": )?|^.*"Enabled":null,"Disabled":null}: `)

// TestConfigurations reads files by kube-scheduler's loader, and starts it with them, and by Keelson's: the same are good, and say the same, and the others are refused in the same words.
func TestConfigurations(t *testing.T) {
	for i, body := range configurations {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			file := []byte("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n" + body + "\n")
			theirs, listed, want := read(file)
			ours, err := config.Read(file, config.Options{})
			if (err == nil) != (want == nil) {
				t.Fatalf("%s\nkube-scheduler says %v, Keelson %v", body, want, err)
			}
			if err != nil {
				if words := aboutField.ReplaceAllString(want.Error(), ""); !strings.HasSuffix(err.Error(), words) && !strings.Contains(body, "EBSLimits") {
					t.Errorf("%s\nkube-scheduler says %s\nKeelson says %s", body, words, err)
				}
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
			for k := range s.Profiles {
				want, got := listed[s.Profiles[k].Name], lists(t, &ours.Plugins[k])
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s\nprofile %s: plugins (-kube-scheduler +Keelson):\n%s", body, s.Profiles[k].Name, diff)
				}
				atPoints(t, s.Profiles[k], want)
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
func read(file []byte) (*schedulerconfig.KubeSchedulerConfiguration, map[string]map[string][]string, error) {
	obj, err := runtime.Decode(scheme.Codecs.UniversalDecoder(), file)
	if err != nil {
		return nil, nil, err
	}
	cfg := obj.(*schedulerconfig.KubeSchedulerConfiguration)
	if err := validation.ValidateKubeSchedulerConfiguration(cfg); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), klog.Logger{}))
	defer cancel()
	c := fake.NewClientset()
	f := informers.NewSharedInformerFactory(c, 0)
	newInformers(f)
	sched, err := kubescheduler.New(ctx, c, f, nil, func(string) events.EventRecorderLogger { return &events.FakeRecorder{} },
		kubescheduler.WithProfiles(cfg.Profiles...), kubescheduler.WithExtenders(cfg.Extenders...), kubescheduler.WithParallelism(cfg.Parallelism))
	if err != nil {
		return nil, nil, err
	}
	listed := map[string]map[string][]string{}
	for name, p := range sched.Profiles {
		var out configv1.Plugins
		if err := configconvert.Convert_config_Plugins_To_v1_Plugins(p.ListPlugins(), &out, nil); err != nil {
			return nil, nil, err
		}
		if listed[name], err = list(&out); err != nil {
			return nil, nil, err
		}
	}
	return cfg, listed, nil
}

// oneHas are plugins that one of the two has by default and the other has not.
var oneHas = []string{"DynamicResources", "NodeDeclaredFeatures", "ResourceClaims", "GangScheduling"}

// list has the plugins of each point with weights.
func list(p *configv1.Plugins) (map[string][]string, error) {
	data, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	var sets map[string]configv1.PluginSet
	if err := json.Unmarshal(data, &sets); err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for point, set := range sets {
		for _, e := range set.Enabled {
			if !slices.Contains(oneHas, e.Name) {
				out[point] = append(out[point], fmt.Sprint(e.Name, " ", ptr.Deref(e.Weight, 0)))
			}
		}
	}
	return out, nil
}

func lists(t *testing.T, p *configv1.Plugins) map[string][]string {
	t.Helper()
	out, err := list(p)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// atPoints compares the plugins that Keelson's engine asks, at the points that mean the same in both.
func atPoints(t *testing.T, p scheduler.NamedProfile, want map[string][]string) {
	t.Helper()
	for _, at := range []scheduler.Points{scheduler.AtFilter, scheduler.AtPostFilter, scheduler.AtScore, scheduler.AtReserve, scheduler.AtPermit, scheduler.AtPostBind} {
		var got []string
		for _, w := range p.At(at) {
			if !slices.Contains(oneHas, w.Plugin.Name()) {
				got = append(got, w.Plugin.Name())
			}
		}
		var names []string
		for _, name := range want[at.String()] {
			names = append(names, strings.Fields(name)[0])
		}
		if diff := cmp.Diff(names, got); diff != "" {
			t.Errorf("asked at %s (-kube-scheduler +Keelson):\n%s", at, diff)
		}
	}
}
