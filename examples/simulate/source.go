package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/keelson/keelson/scheduler/sim"
	"github.com/keelson/keelson/scheduler/sim/trace"
)

// source is where the workload comes from.
type source struct {
	trace.Options
	generate string
	churn    time.Duration
	read     string
	from     time.Duration
	limit    int
}

func (s source) workload() (sim.Workload, error) {
	if s.read != "" {
		return s.fromTrace()
	}
	generators := map[string]func(trace.Options) (sim.Workload, error){"borg": trace.Borg, "alibaba": trace.Alibaba, "gpu": trace.GPU, "azure": trace.Azure}
	generate := generators[s.generate]
	if generate == nil {
		return sim.Workload{}, fmt.Errorf("-generate %q: want borg, alibaba, gpu or azure", s.generate)
	}
	w, err := generate(s.Options)
	if err != nil || s.churn == 0 {
		return w, err
	}
	return trace.Churn(w, trace.ChurnOptions{Seed: s.Seed, Length: s.Length, Between: s.churn, Drains: 0.3})
}

func (s source) fromTrace() (w sim.Workload, err error) {
	format, path, ok := strings.Cut(s.read, "=")
	if !ok {
		return w, errors.New("-read: want FORMAT=PATH")
	}
	window := trace.Window{From: s.from, Length: s.Length, Limit: s.limit}
	// table finds a table of a trace by the beginning of its file's name.
	table := func(name string) trace.Source {
		found, gerr := filepath.Glob(filepath.Join(path, name+"*"))
		if gerr != nil || len(found) != 1 {
			err = errors.Join(err, fmt.Errorf("%s: want one file that is called %s…, found %d", path, name, len(found)))
			return nil
		}
		return trace.File(found[0])
	}
	optional := func(name string) trace.Source {
		if found, gerr := filepath.Glob(filepath.Join(path, name+"*")); gerr != nil || len(found) == 0 {
			return nil
		}
		return table(name)
	}
	var read func() (sim.Workload, error)
	switch format {
	case "csv":
		read = func() (sim.Workload, error) {
			return trace.ReadCSV(trace.CSVFile{Source: trace.File(path), Window: window})
		}
	case "borg":
		f := trace.BorgFiles{Machines: table("machine_events"), Instances: table("instance_events"), Collections: optional("collection_events"), Window: window}
		read = func() (sim.Workload, error) { return trace.ReadBorg(f) }
	case "alibaba2018":
		f := trace.Alibaba2018Files{Machines: table("machine_meta"), Containers: optional("container_meta"), Tasks: optional("batch_task"), Instances: optional("batch_instance"), Window: window}
		read = func() (sim.Workload, error) { return trace.ReadAlibaba2018(f) }
	case "gpu2023":
		f := trace.AlibabaGPU2023Files{Nodes: table("openb_node_list"), Pods: table("openb_pod_list"), Window: window}
		read = func() (sim.Workload, error) { return trace.ReadAlibabaGPU2023(f) }
	case "azurevm":
		f := trace.AzureVMFiles{VMs: trace.File(path), Nodes: s.Nodes, Window: window}
		read = func() (sim.Workload, error) { return trace.ReadAzureVM(f) }
	case "azurepacking":
		f := trace.AzurePackingFiles{VMs: table("vm."), Types: table("vmType"), Nodes: s.Nodes, Window: window}
		read = func() (sim.Workload, error) { return trace.ReadAzurePacking(f) }
	default:
		return w, fmt.Errorf("-read: format %q: want csv, borg, alibaba2018, gpu2023, azurevm or azurepacking", format)
	}
	if err != nil {
		return w, err
	}
	return read()
}
