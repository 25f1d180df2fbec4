package trace

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler/sim"
)

// AzureVMFiles are tables of the Azure Public Dataset (V1 of 2017, V2 of 2019).
type AzureVMFiles struct {
	// VMs is vmtable, CSV without a header. Required.
	VMs Source
	// Nodes is how many nodes there are, Machine what each has: the trace tells of none. Required.
	Nodes   int
	Machine Machine
	Window  Window
}

var azureVM = []string{"vmid", "subscriptionid", "deploymentid", "vmcreated", "vmdeleted", "maxcpu", "avgcpu", "p95maxcpu", "vmcategory", "vmcorecountbucket", "vmmemorybucket"}

// azureStep is the resolution of the trace's times.
const azureStep = 5 * time.Minute

// ReadAzureVM reads the trace: a VM is a pod, which runs for five minutes at the least. Interactive VMs come before others by priority.
func ReadAzureVM(f AzureVMFiles) (sim.Workload, error) {
	if f.VMs == nil || f.Nodes <= 0 {
		return sim.Workload{}, fmt.Errorf("trace: AzureVMFiles: want VMs, and at least one node")
	}
	b, err := newBuilder("azure", f.Window)
	if err == nil {
		err = f.Machine.validate()
	}
	if err != nil {
		return sim.Workload{}, err
	}
	b.nodes(f.Nodes, f.Machine.withDefaults())
	seen := 0
	err = read("vmtable", f.VMs, azureVM, true, func(r *rows) error {
		seen++
		s := shape{milliCPU: milli(bucket(r, "vmcorecountbucket", 24, 30)), memory: roundMemory(bucket(r, "vmmemorybucket", 64, 70) * (1 << 30))}
		if category := label(r.str("vmcategory")); category != "" {
			s.label = "category=" + category
			if category == "Interactive" {
				s.priority = servicePriority
			}
		}
		created, deleted := seconds(float64(r.int("vmcreated"))), seconds(float64(r.int("vmdeleted")))
		run := time.Duration(0)
		if deleted > 0 {
			run = max(deleted-created, azureStep)
		}
		b.add(record{at: created, run: run, space: "azure", name: fmt.Sprint("vm-", seen), template: b.template(s)})
		return nil
	})
	if err != nil {
		return sim.Workload{}, err
	}
	return b.workload(), nil
}

// bucket is a number, or, as ">24", what is above the last bucket.
func bucket(r *rows, column string, last, above float64) float64 {
	if s, ok := strings.CutPrefix(r.str(column), ">"); ok {
		if s = strings.TrimSpace(s); s == fmt.Sprint(last) {
			return above
		}
		r.fail("column %s: %q: want a number or >%v", column, r.str(column), last)
	}
	v, _ := r.num(column)
	return v
}

// nodes adds equal nodes in three zones.
func (b *builder) nodes(n int, m Machine) {
	for i := range n {
		zone := map[string]string{corev1.LabelTopologyZone: fmt.Sprint("zone-", i%3)}
		b.records = append(b.records, record{kind: sim.AddNode, node: node(fmt.Sprintf("node-%05d", i), milli(m.Cores), int64(m.MemoryGiB*(1<<30)), zone)})
	}
}

// AzurePackingFiles are the tables of the Azure trace for packing of 2020. It is published as an SQLite database: export them by
// "sqlite3 -header -csv FILE 'select * from vm'", and vmType likewise.
type AzurePackingFiles struct {
	// VMs is the table vm, Types is vmType. Required.
	VMs, Types Source
	// MachineID is the machine whose parts VMs take; VMs of types that this machine can't run are left out. Default: the one that can run most types.
	MachineID string
	// Nodes is how many of those machines there are. Required. Machine is what each has.
	Nodes   int
	Machine Machine
	Window  Window
}

var (
	packingVM   = []string{"vmId", "vmTypeId", "priority", "starttime", "endtime"}
	packingType = []string{"vmTypeId", "machineId", "core", "memory"}
)

// ReadAzurePacking reads the trace. A VM is a pod; of high priority (0 in the trace) or low (1).
func ReadAzurePacking(f AzurePackingFiles) (sim.Workload, error) {
	if f.VMs == nil || f.Types == nil || f.Nodes <= 0 {
		return sim.Workload{}, fmt.Errorf("trace: AzurePackingFiles: want VMs, Types, and at least one node")
	}
	b, err := newBuilder("azure-packing", f.Window)
	if err == nil {
		err = f.Machine.validate()
	}
	if err != nil {
		return sim.Workload{}, err
	}
	m := f.Machine.withDefaults()
	types, err := packingTypes(f, m)
	if err != nil {
		return sim.Workload{}, err
	}
	b.nodes(f.Nodes, m)
	err = read("vm", f.VMs, packingVM, false, func(r *rows) error {
		s, ok := types[r.str("vmTypeId")]
		if !ok {
			return nil
		}
		if r.int("priority") == 0 {
			s.priority = servicePriority
		}
		const day = 24 * 60 * 60
		start, _ := r.num("starttime")
		run := time.Duration(0)
		if end, ok := r.num("endtime"); ok {
			if end <= 0 {
				return nil
			}
			run = max(seconds((end-start)*day), time.Second)
			if start < 0 {
				run = max(seconds(end*day), time.Second)
			}
		}
		b.add(record{at: seconds(max(start, 0) * day), run: run, space: "azure", name: "vm-" + r.str("vmId"), template: b.template(s)})
		return nil
	})
	if err != nil {
		return sim.Workload{}, err
	}
	return b.workload(), nil
}

// packingTypes are the shapes of the types that the machine can run, by vmTypeId.
func packingTypes(f AzurePackingFiles, m Machine) (map[string]shape, error) {
	byMachine := map[string]map[string]shape{}
	best := f.MachineID
	err := read("vmType", f.Types, packingType, false, func(r *rows) error {
		machine := r.str("machineId")
		core, _ := r.num("core")
		memory, _ := r.num("memory")
		if core < 0 || core > 1 || memory < 0 || memory > 1 {
			return fmt.Errorf("type %s takes %v of the cores and %v of the memory: want parts of one machine", r.str("vmTypeId"), core, memory)
		}
		if byMachine[machine] == nil {
			byMachine[machine] = map[string]shape{}
		}
		// Parts are rounded down to whole milli-units and MiB, so that what fills a machine still fits.
		byMachine[machine][r.str("vmTypeId")] = shape{milliCPU: int64(math.Floor(core * m.Cores * 1000)), memory: int64(memory*m.MemoryGiB*1024) * mib}
		if f.MachineID == "" && (best == "" || len(byMachine[machine]) > len(byMachine[best])) {
			best = machine
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	types := byMachine[best]
	if len(types) == 0 {
		return nil, fmt.Errorf("trace: vmType: no types for machine %q", cmp.Or(best, "(any)"))
	}
	return types, nil
}
