package config

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"k8s.io/utils/ptr"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
)

// profileBuilder turns one profile of a file into a scheduler.Profile.
type profileBuilder struct {
	from    *configv1.KubeSchedulerProfile
	path    *field.Path
	own     map[string]Factory
	ignored []string

	defaults scheduler.Profile
	made     map[string]scheduler.Plugin
	builtin  map[string]bool
	failed   map[string]bool

	profile  scheduler.Profile
	order    map[scheduler.Points][]string
	listed   configv1.Plugins
	warnings []string
}

func newProfileBuilder(from *configv1.KubeSchedulerProfile, index int, opts Options, ignored []string) *profileBuilder {
	return &profileBuilder{
		from: from, path: field.NewPath("profiles").Index(index), own: opts.Plugins, ignored: ignored,
		defaults: plugins.Default(), made: map[string]scheduler.Plugin{}, builtin: map[string]bool{}, failed: map[string]bool{},
	}
}

func (b *profileBuilder) warn(path *field.Path, format string, args ...any) {
	b.warnings = append(b.warnings, path.String()+": "+fmt.Sprintf(format, args...))
}

func (b *profileBuilder) build() error {
	multi := b.mergeMulti()
	if err := b.make(multi); err != nil {
		return err
	}
	lists := map[string][]string{}
	for _, at := range pointsOf(b.from.Plugins) {
		list, err := b.expand(at, multi)
		if err != nil {
			return fmt.Errorf("%s: %w", b.path.Child("plugins", at.name), err)
		}
		lists[at.name] = list
	}
	if err := b.check(lists); err != nil {
		return err
	}
	var scores map[string]int64
	for _, at := range pointsOf(&b.listed) {
		var weights map[string]int64
		if at.name == "score" || at.name == "placementScore" {
			var err error
			if weights, err = b.weights(b.point(at.name), lists[at.name], multi); err != nil {
				return err
			}
		}
		if at.name == "score" {
			scores = weights
		}
		for _, name := range lists[at.name] {
			p := configv1.Plugin{Name: name}
			if w, ok := weights[name]; ok {
				p.Weight = ptr.To(int32(w))
			}
			at.set.Enabled = append(at.set.Enabled, p)
		}
	}
	b.assemble(multi, lists, scores)
	return nil
}

func (b *profileBuilder) point(name string) point {
	all := pointsOf(b.from.Plugins)
	return all[slices.IndexFunc(all, func(p point) bool { return p.name == name })]
}

// mergeMulti is multiPoint's list, on top of the default one: a default plugin keeps its place.
func (b *profileBuilder) mergeMulti() (out []configv1.Plugin) {
	set := b.from.Plugins.MultiPoint
	disabled := func(name string) bool {
		return slices.ContainsFunc(set.Disabled, func(p configv1.Plugin) bool { return p.Name == name })
	}
	replaced := map[int]bool{}
	for _, d := range b.defaultMulti() {
		if disabled("*") || disabled(d.Name) {
			continue
		}
		// The last of several counts, as in kube-scheduler.
		for i := len(set.Enabled) - 1; i >= 0; i-- {
			if set.Enabled[i].Name == d.Name {
				d, replaced[i] = set.Enabled[i], true
				break
			}
		}
		out = append(out, d)
	}
	for i, p := range set.Enabled {
		if !replaced[i] {
			out = append(out, p)
		}
	}
	return out
}

func (b *profileBuilder) defaultMulti() (out []configv1.Plugin) {
	for _, w := range b.defaults {
		weight := int32(w.Weight)
		out = append(out, configv1.Plugin{Name: w.Plugin.Name(), Weight: &weight})
		if w.Plugin.Name() == "SchedulingGates" {
			out = append(out, configv1.Plugin{Name: prioritySort})
		}
	}
	return append(out, configv1.Plugin{Name: defaultBinder})
}

// make makes all plugins that are enabled anywhere.
func (b *profileBuilder) make(multi []configv1.Plugin) error {
	var errs []error
	add := func(path *field.Path, kind string, enabled []configv1.Plugin) {
		for i, p := range enabled {
			if b.failed[p.Name] {
				continue
			}
			if err := b.makeOne(p.Name, path.Child("enabled").Index(i), kind); err != nil {
				b.failed[p.Name] = true
				errs = append(errs, err)
			}
		}
	}
	add(b.path.Child("plugins", "multiPoint"), "PreFilterPlugin", b.from.Plugins.MultiPoint.Enabled)
	for _, at := range pointsOf(b.from.Plugins) {
		add(b.path.Child("plugins", at.name), at.kind, at.set.Enabled)
	}
	add(b.path.Child("plugins", "multiPoint"), "PreFilterPlugin", multi)
	if err := b.unusedConfig(); err != nil {
		errs = append(errs, err)
	}
	return utilerrors.NewAggregate(errs)
}

func (b *profileBuilder) makeOne(name string, path *field.Path, kind string) error {
	if b.made[name] != nil || name == prioritySort || name == defaultBinder {
		return nil
	}
	args, argsPath := b.args(name)
	if factory := b.own[name]; factory != nil {
		raw, err := rawArgs(args)
		if err != nil {
			return fmt.Errorf("%s: %w", argsPath, err)
		}
		p, err := factory(raw)
		switch {
		case err != nil:
			return fmt.Errorf("%s: initializing plugin %q: %w", b.path, name, err)
		case p == nil || p.Name() != name:
			return fmt.Errorf("%s: initializing plugin %q: want a plugin of that name", b.path, name)
		}
		b.made[name] = p
		return nil
	}
	switch {
	case b.isDefault(name):
	case unsupported[name]:
		return field.Invalid(path, name, "is a plugin of Kubernetes that is not supported")
	default:
		return fmt.Errorf("%s: %s %q does not exist", path, kind, name)
	}
	b.builtin[name] = true
	if args.Object == nil && name == "NodeResourcesFit" && len(b.ignored) > 0 {
		args.Object = &configv1.NodeResourcesFitArgs{}
		setDefaultArgs(args.Object)
	}
	p, ok, err := withArgs(args.Object, b.ignored, argsPath)
	if err != nil {
		return err
	}
	if !ok {
		p = b.defaults[b.index(name)].Plugin
	}
	b.made[name] = p
	return nil
}

func (b *profileBuilder) index(name string) int {
	return slices.IndexFunc(b.defaults, func(w scheduler.Weighted) bool { return w.Plugin.Name() == name })
}

func (b *profileBuilder) isDefault(name string) bool { return b.index(name) >= 0 }

func (b *profileBuilder) args(name string) (runtime.RawExtension, *field.Path) {
	for i, c := range b.from.PluginConfig {
		if c.Name == name {
			return c.Args, b.path.Child("pluginConfig").Index(i).Child("args")
		}
	}
	return runtime.RawExtension{}, b.path.Child("pluginConfig")
}

// unusedConfig warns of arguments that nobody reads.
func (b *profileBuilder) unusedConfig() error {
	var errs []error
	for i, c := range b.from.PluginConfig {
		path := b.path.Child("pluginConfig").Index(i)
		if err := checkUnused(c.Args.Object, path.Child("args")); err != nil {
			errs = append(errs, err)
		}
		why := ""
		switch {
		case b.made[c.Name] == nil:
			why = "it is not enabled"
		case b.own[c.Name] != nil || takesArgs(c.Args.Object):
		case c.Name == "DefaultPreemption":
			why = "all nodes are candidates"
		case c.Args.Object != nil || len(c.Args.Raw) > 0:
			why = "it takes none"
		}
		if why != "" && !b.failed[c.Name] {
			b.warn(path, "the arguments of %s have no effect: %s", c.Name, why)
		}
	}
	return utilerrors.NewAggregate(errs)
}

// expand is the list of plugins at one point, in order: those of multiPoint that the point mentions, the others of multiPoint, and the others the
// point mentions.
func (b *profileBuilder) expand(at point, multi []configv1.Plugin) (out []string, err error) {
	var enabled []string
	for _, p := range at.set.Enabled {
		switch {
		case slices.Contains(enabled, p.Name):
			return nil, fmt.Errorf("plugin %q already registered as %q", p.Name, at.kind)
		case !b.extends(p.Name, at):
			return nil, fmt.Errorf("plugin %q does not extend %s plugin", p.Name, at.kind)
		}
		enabled = append(enabled, p.Name)
	}
	off := func(name string) bool {
		return slices.ContainsFunc(at.set.Disabled, func(p configv1.Plugin) bool { return p.Name == name })
	}
	if off("*") {
		return enabled, nil
	}
	var first, second []string
	for _, p := range multi {
		switch {
		case !b.extends(p.Name, at) || off(p.Name):
		case slices.Contains(enabled, p.Name):
			first = append(first, p.Name)
		case slices.Contains(second, p.Name):
			return nil, fmt.Errorf("plugin %q already registered as %q", p.Name, at.kind)
		default:
			second = append(second, p.Name)
		}
	}
	var third []string
	for _, name := range enabled {
		if slices.Contains(first, name) {
			out = append(out, name)
		} else {
			third = append(third, name)
		}
	}
	return append(append(out, second...), third...), nil
}

// check refuses what can't be had.
func (b *profileBuilder) check(lists map[string][]string) error {
	name := *b.from.SchedulerName
	if n := len(lists["queueSort"]); n != 1 {
		return fmt.Errorf("%s: only one queue sort plugin required for profile with scheduler name %q, but got %d", b.path.Child("plugins", "queueSort"), name, n)
	}
	if len(lists["bind"]) == 0 {
		return fmt.Errorf("%s: at least one bind plugin is needed for profile with scheduler name %q", b.path.Child("plugins", "bind"), name)
	}
	b.inseparables(lists)
	b.pointless(lists)
	return nil
}

// inseparables warns where a file leaves out half of what a plugin does.
func (b *profileBuilder) inseparables(lists map[string][]string) {
	for _, at := range inseparable {
		var names []string
		for _, name := range lists[at.main] {
			if b.builtin[name] && slices.Contains(at.plugins, name) && !slices.Contains(lists[at.pre], name) {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			b.warn(b.path.Child("plugins", at.pre), "leaving out %s has no effect: what they prepare there is part of %s, without which kube-scheduler fails all pods",
				strings.Join(names, ", "), at.main)
		}
	}
	if vb := "VolumeBinding"; b.builtin[vb] && slices.Contains(lists["reserve"], vb) && !slices.Contains(lists["preBind"], vb) {
		b.warn(b.path.Child("plugins", "preBind"), "leaving out %s has no effect: the volumes that it reserves are bound", vb)
	}
}

// pointless warns of changes at points that aren't there.
func (b *profileBuilder) pointless(lists map[string][]string) {
	var names []string
	for _, name := range lists["score"] {
		separable := !slices.Contains(inseparable[1].plugins, name)
		if b.builtin[name] && separable && slices.Contains(extensions[name], "preScore") && !slices.Contains(lists["preScore"], name) {
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		b.warn(b.path.Child("plugins", "preScore"), "leaving out %s has no effect: what they find out there is part of score", strings.Join(names, ", "))
	}
	const preemption = "DefaultPreemption"
	if groups, alone := slices.Contains(lists["podGroupPostFilter"], preemption), slices.Contains(lists["postFilter"], preemption); groups != alone {
		b.warn(b.path.Child("plugins", "podGroupPostFilter"), "has no effect: room is made for groups if %s is at postFilter, as for single pods", preemption)
	}
	if set := b.from.Plugins.PlacementScore; len(set.Enabled)+len(set.Disabled) > 0 {
		b.warn(b.path.Child("plugins", "placementScore"), "has no effect: groups have no placements to choose from")
	}
}

// weights are those of the plugins at score or placementScore: what is said there counts more than what multiPoint says.
func (b *profileBuilder) weights(at point, list []string, multi []configv1.Plugin) (map[string]int64, error) {
	weights := map[string]int64{}
	var total int64
	for _, p := range append(slices.Clone(at.set.Enabled), multi...) {
		if _, seen := weights[p.Name]; seen || !slices.Contains(list, p.Name) {
			continue
		}
		w := int64(1)
		if p.Weight != nil && *p.Weight != 0 {
			w = int64(*p.Weight)
		}
		if w < 0 {
			return nil, field.Invalid(b.path.Child("plugins", at.name), w, fmt.Sprintf("the weight of %s must not be negative", p.Name))
		}
		if w*scheduler.MaxScore > math.MaxInt64-total {
			return nil, errors.New("score plugins: total score of Score plugins could overflow")
		}
		total += w * scheduler.MaxScore
		weights[p.Name] = w
	}
	return weights, nil
}

// assemble puts the plugins into one order and leaves them out where they are not enabled.
func (b *profileBuilder) assemble(multi []configv1.Plugin, lists map[string][]string, weights map[string]int64) {
	points := pointsOf(b.from.Plugins)
	// What filters first decides which reason is given, so its order counts most.
	slices.SortStableFunc(points, func(x, y point) int {
		switch {
		case x.name == "filter" && y.name != "filter":
			return -1
		case y.name == "filter" && x.name != "filter":
			return 1
		}
		return 0
	})
	var order []string
	at := map[string]scheduler.Points{}
	for _, p := range points {
		if p.at == 0 {
			continue
		}
		last := -1
		for k, name := range lists[p.name] {
			if at[name] |= p.at; name != defaultBinder && !b.points(name).Has(p.at) {
				continue // it does nothing there
			}
			switch i := slices.Index(order, name); {
			case i < 0:
				last = place(order, last, lists[p.name][k+1:], after(multi, name))
				order = slices.Insert(order, last, name)
			default:
				last = max(last, i)
			}
		}
	}
	binds := lists["bind"]
	binder := slices.Index(binds, defaultBinder)
	for _, name := range order {
		if name == defaultBinder {
			continue
		}
		w := scheduler.Weighted{Plugin: b.made[name], Weight: weights[name]}
		has := b.points(name)
		if _, picks := w.Plugin.(scheduler.NodePicker); b.builtin[name] && !picks && slices.Contains(lists["filter"], name) {
			has &^= scheduler.AtPreFilter // one with filter
		}
		w.Except = has &^ at[name]
		if i := slices.Index(binds, name); binder >= 0 && i > binder {
			w.Except |= scheduler.AtBind // the default binder never lets others have a pod
		}
		b.profile = append(b.profile, w)
	}
	// Who groups pods has no point of its own: it is there where it is enabled for all.
	for _, p := range multi {
		if _, groups := b.made[p.Name].(scheduler.GroupPlugin); groups && !slices.Contains(order, p.Name) {
			b.profile = append(b.profile, scheduler.Weighted{Plugin: b.made[p.Name]})
		}
	}
	if binder < 0 {
		b.profile = append(b.profile, scheduler.Weighted{Plugin: noBinder{}})
	}
	b.setOrder(points, lists)
}

// setOrder gives each point its order that isn't the profile's.
func (b *profileBuilder) setOrder(points []point, lists map[string][]string) {
	at := func(name string) int {
		return slices.IndexFunc(b.profile, func(w scheduler.Weighted) bool { return w.Plugin.Name() == name })
	}
	for _, p := range points {
		names := slices.DeleteFunc(slices.Clone(lists[p.name]), func(name string) bool { return at(name) < 0 || !b.points(name).Has(p.at) })
		if p.at == 0 || slices.IsSortedFunc(names, func(x, y string) int { return cmp.Compare(at(x), at(y)) }) {
			continue
		}
		if b.order == nil {
			b.order = map[scheduler.Points][]string{}
		}
		b.order[p.at] = names
	}
}

// place is where to insert a name: after the one before it, else before the first of those that follow it at its point, else of those that follow it
// in multiPoint, else at the end.
func place(order []string, last int, following ...[]string) int {
	if last >= 0 {
		return last + 1
	}
	for _, names := range following {
		for _, name := range names {
			if i := slices.Index(order, name); i >= 0 {
				return i
			}
		}
	}
	return len(order)
}

func after(multi []configv1.Plugin, name string) (out []string) {
	i := slices.IndexFunc(multi, func(p configv1.Plugin) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	for _, p := range multi[i+1:] {
		out = append(out, p.Name)
	}
	return out
}

// noBinder stands where the default binder is disabled.
type noBinder struct{}

func (noBinder) Name() string { return "DefaultBinder is disabled" }

func (noBinder) Bind(context.Context, *scheduler.Pod, string) (bool, error) {
	return true, errors.New("no bind plugin handled the pod, and DefaultBinder is disabled")
}
