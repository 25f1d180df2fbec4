package config

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	componentv1 "k8s.io/component-base/config/v1alpha1"
	configv1 "k8s.io/kube-scheduler/config/v1"

	"github.com/keelson/keelson/scheduler"
)

// Options of Read.
type Options struct {
	// Plugins are rules of your own, by the names under which files may enable them. A name that Kubernetes has, too, replaces its rule.
	Plugins map[string]Factory
}

// Factory makes a plugin, once for each profile that enables it. Its arguments are what the profile's pluginConfig says, as JSON, or nil. The
// plugin's Name must be the one it is enabled under.
type Factory func(args []byte) (scheduler.Plugin, error)

// Config is what a file says.
type Config struct {
	// Scheduler has the profiles, the extenders and the back-off. The rest is the caller's to fill in.
	Scheduler scheduler.Options
	// Plugins are those of each profile at each of kube-scheduler's extension points, in order, with the weights of those that score.
	Plugins []configv1.Plugins
	// LeaderElection with its defaults.
	LeaderElection componentv1.LeaderElectionConfiguration
	// ClientConnection with its defaults; see RESTConfig.
	ClientConnection componentv1.ClientConnectionConfiguration
	// DelayCacheUntilActive: the cache is to be started by the leader alone.
	DelayCacheUntilActive bool
	// Warnings name fields that have no effect.
	Warnings []string
}

// Default is what an empty configuration says.
func Default(opts Options) (*Config, error) {
	return build(&configv1.KubeSchedulerConfiguration{}, opts)
}

// Read reads a configuration, YAML or JSON. It fails if any of it is unknown, invalid or unsupported, and names all such fields that it finds.
func Read(data []byte, opts Options) (*Config, error) {
	in, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return build(in, opts)
}

func decode(data []byte) (*configv1.KubeSchedulerConfiguration, error) {
	// Not by configv1.AddToScheme: defaults that others in the program have registered there would be taken for what the file says.
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(configv1.SchemeGroupVersion,
		&configv1.KubeSchedulerConfiguration{}, &configv1.DefaultPreemptionArgs{}, &configv1.DynamicResourcesArgs{}, &configv1.InterPodAffinityArgs{},
		&configv1.NodeAffinityArgs{}, &configv1.NodeResourcesBalancedAllocationArgs{}, &configv1.NodeResourcesFitArgs{}, &configv1.PodTopologySpreadArgs{},
		&configv1.VolumeBindingArgs{},
	)
	codecs := serializer.NewCodecFactory(scheme, serializer.EnableStrict)
	obj, gvk, err := codecs.DecoderToVersion(codecs.UniversalDeserializer(), configv1.SchemeGroupVersion).Decode(data, nil, nil)
	if err != nil {
		return nil, err
	}
	in, ok := obj.(*configv1.KubeSchedulerConfiguration)
	if !ok {
		return nil, fmt.Errorf("couldn't decode as KubeSchedulerConfiguration, got %s: ", gvk)
	}
	return in, nil
}

func build(in *configv1.KubeSchedulerConfiguration, opts Options) (*Config, error) {
	warnings := warnings(in)
	setDefaults(in)
	if err := validate(in); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	out := &Config{
		LeaderElection: in.LeaderElection, ClientConnection: in.ClientConnection, DelayCacheUntilActive: in.DelayCacheUntilActive, Warnings: warnings,
	}
	out.Scheduler.InitialBackoff = time.Duration(*in.PodInitialBackoffSeconds) * time.Second
	out.Scheduler.MaxBackoff = time.Duration(*in.PodMaxBackoffSeconds) * time.Second
	extenders, ignored, err := buildExtenders(in.Extenders)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	out.Scheduler.Extenders = extenders
	var errs []error
	for i := range in.Profiles {
		b := newProfileBuilder(&in.Profiles[i], i, opts, ignored)
		if err := b.build(); err != nil {
			errs = append(errs, err)
			continue
		}
		out.Scheduler.Profiles = append(out.Scheduler.Profiles, scheduler.NamedProfile{Name: *in.Profiles[i].SchedulerName, Plugins: b.profile, Order: b.order})
		out.Plugins = append(out.Plugins, b.listed)
		out.Warnings = append(out.Warnings, b.warnings...)
	}
	if err := utilerrors.NewAggregate(errs); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	out.Warnings = slices.Compact(out.Warnings)
	return out, nil
}

// warnings are about fields that are read and have no effect.
func warnings(in *configv1.KubeSchedulerConfiguration) (out []string) {
	percentage := func(path string, p *int32) {
		if p != nil && *p != 0 && *p != 100 {
			out = append(out, path+"percentageOfNodesToScore: has no effect: all nodes are considered")
		}
	}
	if in.Parallelism != nil {
		out = append(out, "parallelism: has no effect: a decision is made by one goroutine")
	}
	percentage("", in.PercentageOfNodesToScore)
	for i := range in.Profiles {
		percentage(fmt.Sprintf("profiles[%d].", i), in.Profiles[i].PercentageOfNodesToScore)
	}
	if p := in.EnableProfiling; p != nil && *p {
		out = append(out, "enableProfiling: has no effect: there is no server for it")
	}
	if p := in.EnableContentionProfiling; p != nil && *p {
		out = append(out, "enableContentionProfiling: has no effect: there is no server for it")
	}
	return out
}

// RESTConfig is the connection that clientConnection describes: that of its kubeconfig, or without one that of the pod the program runs in.
func (c *Config) RESTConfig() (*rest.Config, error) {
	cc := c.ClientConnection
	cfg, err := clientcmd.BuildConfigFromFlags("", cc.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("config: clientConnection.kubeconfig: %w", err)
	}
	cfg.AcceptContentTypes, cfg.ContentType = cc.AcceptContentTypes, cc.ContentType
	cfg.QPS, cfg.Burst = cc.QPS, int(cc.Burst)
	return cfg, nil
}

// rawArgs is what the file says of a plugin that isn't Kubernetes'.
func rawArgs(args runtime.RawExtension) ([]byte, error) {
	if args.Object != nil {
		return json.Marshal(args.Object)
	}
	return args.Raw, nil
}
