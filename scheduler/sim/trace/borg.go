package trace

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/keelson/keelson/scheduler/sim"
)

// BorgFiles are tables of the trace of Google's Borg clusters of 2019 (version 3 of the format), of one cell.
type BorgFiles struct {
	// Machines is machine_events, Instances is instance_events. Required.
	Machines, Instances Source
	// Collections is collection_events: collections with max_per_machine 1 are kept apart. Optional.
	Collections Source
	// Machine is the largest one, of which capacities and requests are parts.
	Machine Machine
	Window  Window
}

// Columns of the tables, as far as they are used.
var (
	borgMachine    = []string{"time", "machine_id", "type", "switch_id", "capacity.cpus", "capacity.memory", "platform_id"}
	borgInstance   = []string{"time", "type", "collection_id", "priority", "alloc_collection_id", "instance_index", "resource_request.cpus", "resource_request.memory"}
	borgCollection = []string{"collection_id", "max_per_machine"}
)

// The events' types, which appear by number or by name.
var (
	borgEvents        = []string{"SUBMIT", "QUEUE", "ENABLE", "SCHEDULE", "EVICT", "FAIL", "FINISH", "KILL", "LOST", "UPDATE_PENDING", "UPDATE_RUNNING"}
	borgMachineEvents = []string{"EVENT_TYPE_UNKNOWN", "ADD", "REMOVE", "UPDATE"}
)

func borgType(r *rows, names []string) string {
	s := r.str("type")
	if i, err := strconv.Atoi(s); err == nil && i >= 0 && i < len(names) {
		return names[i]
	}
	return s
}

// borgTime is in microseconds; ok is false for what was after the trace's end. 0 is before its beginning.
func borgTime(r *rows) (t time.Duration, ok bool) {
	us := r.int("time")
	if us < 0 || us >= math.MaxInt64/1000 {
		return 0, false
	}
	return time.Duration(us) * time.Microsecond, true
}

// instance is a task, or an instance of an alloc set, on its way through the trace.
type instance struct {
	submitted, scheduled time.Duration
	shape                shape
	running, ended       bool
}

// ReadBorg reads the trace. Instances of alloc sets are pods; tasks inside of them are not, for they take nothing more. An instance that was evicted and came again is one
// pod, which runs as long as it did the last time. What never ended runs for ever.
func ReadBorg(f BorgFiles) (sim.Workload, error) {
	if f.Machines == nil || f.Instances == nil {
		return sim.Workload{}, fmt.Errorf("trace: BorgFiles: want Machines and Instances")
	}
	b, err := newBuilder("borg-2019", f.Window)
	if err == nil {
		err = f.Machine.validate()
	}
	if err != nil {
		return sim.Workload{}, err
	}
	m := f.Machine.withDefaults()
	if err := b.borgMachines(f.Machines, m); err != nil {
		return sim.Workload{}, err
	}
	apart := map[int64]bool{}
	err = read("collection_events", f.Collections, borgCollection, false, func(r *rows) error {
		if r.int("max_per_machine") == 1 {
			apart[r.int("collection_id")] = true
		}
		return nil
	})
	if err != nil {
		return sim.Workload{}, err
	}
	if err := b.borgInstances(f.Instances, m, apart); err != nil {
		return sim.Workload{}, err
	}
	return b.workload(), nil
}

func (b *builder) borgMachines(src Source, m Machine) error {
	known := map[string]bool{}
	return read("machine_events", src, borgMachine, false, func(r *rows) error {
		at, ok := borgTime(r)
		if !ok {
			return nil
		}
		name := "m" + r.str("machine_id")
		switch borgType(r, borgMachineEvents) {
		case "ADD", "UPDATE":
			cpu, hasCPU := r.num("capacity.cpus")
			memory, hasMemory := r.num("capacity.memory")
			if !hasCPU || !hasMemory || cpu <= 0 || memory <= 0 {
				if known[name] { // it comes back as it was
					b.add(record{at: at, kind: sim.RecoverNode, name: name})
				}
				return nil // a machine of which nothing is known
			}
			known[name] = true
			n := node(name, int64(min(cpu*m.Cores, 1<<40)*1000), wholeMiB(memory*m.MemoryGiB*(1<<30)), map[string]string{"switch": r.str("switch_id"), "platform": r.str("platform_id")})
			b.add(record{at: at, kind: sim.AddNode, node: n})
		case "REMOVE":
			if known[name] {
				b.add(record{at: at, kind: sim.FailNode, name: name})
			}
		default:
			return fmt.Errorf("machine event of type %q: want ADD, REMOVE or UPDATE", r.str("type"))
		}
		return nil
	})
}

func (b *builder) borgInstances(src Source, m Machine, apart map[int64]bool) error {
	type key struct{ collection, index int64 }
	all := map[key]*instance{}
	var order []key
	err := read("instance_events", src, borgInstance, false, func(r *rows) error {
		at, ok := borgTime(r)
		if !ok || r.int("alloc_collection_id") > 0 {
			return nil
		}
		k := key{r.int("collection_id"), r.int("instance_index")}
		i := all[k]
		if i == nil {
			i = &instance{submitted: at}
			all[k] = i
			order = append(order, k)
		}
		if i.ended {
			return nil
		}
		if at < i.submitted {
			return fmt.Errorf("event of instance %d/%d at %v after one at %v: want instance_events ORDER BY time", k.collection, k.index, at, i.submitted)
		}
		b.borgRequest(r, i, m, k.collection, apart[k.collection])
		switch kind := borgType(r, borgEvents); kind {
		case "SUBMIT", "QUEUE", "ENABLE", "UPDATE_PENDING", "UPDATE_RUNNING":
		case "SCHEDULE":
			i.scheduled, i.running = at, true
		case "EVICT":
			i.running = false
		case "FAIL", "FINISH", "KILL", "LOST":
			i.ended = true
			b.borgEnd(i, at, kind, k.collection, k.index)
		default:
			return fmt.Errorf("instance event of type %q", kind)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, k := range order {
		if i := all[k]; !i.ended {
			b.add(record{at: i.submitted, space: "borg", name: borgName(k.collection, k.index), template: b.template(i.shape)})
		}
	}
	return nil
}

func borgName(collection, index int64) string { return fmt.Sprint(collection, "-", index) }

// borgRequest notes the first request that an event tells.
func (b *builder) borgRequest(r *rows, i *instance, m Machine, collection int64, apart bool) {
	cpu, hasCPU := r.num("resource_request.cpus")
	memory, hasMemory := r.num("resource_request.memory")
	if i.shape.milliCPU+i.shape.memory > 0 || !hasCPU && !hasMemory {
		return
	}
	i.shape = shape{milliCPU: milli(cpu * m.Cores), memory: roundMemory(memory * m.MemoryGiB * (1 << 30)), priority: int32(r.int("priority"))}
	if apart {
		i.shape.apart, i.shape.label = true, fmt.Sprint("collection=", collection)
	}
}

func (b *builder) borgEnd(i *instance, at time.Duration, kind string, collection, index int64) {
	name := borgName(collection, index)
	if !i.running {
		if at <= max(i.submitted, b.window.From) {
			return
		}
		// It ended before it ran: whoever waited for it did not want it any more.
		b.add(record{at: i.submitted, space: "borg", name: name, template: b.template(i.shape)})
		b.add(record{at: at, kind: sim.Cancel, name: "borg/" + name})
		return
	}
	b.add(record{at: i.submitted, run: max(at-i.scheduled, time.Microsecond), fails: kind == "FAIL", space: "borg", name: name, template: b.template(i.shape)})
}
