package trace

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/keelson/keelson/scheduler/sim"
	"github.com/keelson/keelson/scheduler/sim/gpushare"
)

// Alibaba2018Files are tables of Alibaba's cluster trace of 2018, as published: CSV without headers.
type Alibaba2018Files struct {
	// Machines is machine_meta. Required.
	Machines Source
	// Containers is container_meta: services, which run to the end. Tasks is batch_task: jobs, of which each task is that many equal pods at once as it has
	// instances. At least one of the three is required.
	Containers, Tasks Source
	// Instances is batch_instance: each row is a pod with a beginning and an end of its own. Tasks then says only what was planned for them; those whose
	// task isn't there take what they used at most. The table has more than a billion rows: give a Window.
	Instances Source
	// MemoryGiB is the memory of the largest machine, of which the trace tells percents. Default 256.
	MemoryGiB float64
	Window    Window
}

var (
	alibabaMachine   = []string{"machine_id", "time_stamp", "failure_domain_1", "failure_domain_2", "cpu_num", "mem_size", "status"}
	alibabaContainer = []string{"container_id", "machine_id", "time_stamp", "app_du", "status", "cpu_request", "cpu_limit", "mem_size"}
	alibabaTask      = []string{"task_name", "instance_num", "job_name", "task_type", "status", "start_time", "end_time", "plan_cpu", "plan_mem"}
	alibabaInstance  = []string{
		"instance_name", "task_name", "job_name", "task_type", "status", "start_time", "end_time", "machine_id", "seq_no", "total_seq_no",
		"cpu_avg", "cpu_max", "mem_avg", "mem_max",
	}
)

// Priorities of services and jobs in the traces that only tell the one from the other.
const (
	servicePriority = 1000
	batchPriority   = 0
)

// ReadAlibaba2018 reads the trace. Amounts of memory beyond 0 to 100 percent, by which the trace marks what is invalid, count as none. Containers have the label app, their app_du; machines the zone failure_domain_1.
func ReadAlibaba2018(f Alibaba2018Files) (sim.Workload, error) {
	if f.Machines == nil || f.Containers == nil && f.Tasks == nil && f.Instances == nil {
		return sim.Workload{}, fmt.Errorf("trace: Alibaba2018Files: want Machines, and Containers, Tasks or Instances")
	}
	b, err := newBuilder("alibaba-2018", f.Window)
	if err == nil {
		err = Machine{MemoryGiB: f.MemoryGiB}.validate()
	}
	if err != nil {
		return sim.Workload{}, err
	}
	bytes := func(percent float64) float64 { return percent / 100 * cmp.Or(f.MemoryGiB, 256) * (1 << 30) }
	memory := func(percent float64) int64 {
		if percent > 100 {
			return 0
		}
		return roundMemory(bytes(percent))
	}
	seen := map[string]string{} // machines' status
	err = read("machine_meta", f.Machines, alibabaMachine, true, func(r *rows) error {
		name, status := r.str("machine_id"), r.str("status")
		cpu, _ := r.num("cpu_num")
		mem, _ := r.num("mem_size")
		last, known := seen[name]
		if known && last == status {
			return nil // told again
		}
		seen[name] = status
		at := seconds(float64(r.int("time_stamp")))
		if known && status != "USING" {
			b.add(record{at: at, kind: sim.FailNode, name: name})
			return nil
		}
		if name == "" || cpu <= 0 || mem <= 0 || mem > 100 {
			return nil
		}
		b.add(record{at: at, kind: sim.AddNode, node: node(name, int64(min(cpu, 1<<40)*1000), wholeMiB(bytes(mem)), map[string]string{
			corev1.LabelTopologyZone: label(r.str("failure_domain_1")), "failure-domain-2": label(r.str("failure_domain_2")),
		})})
		return nil
	})
	if err != nil {
		return sim.Workload{}, err
	}
	if err := b.alibabaContainers(f.Containers, memory); err != nil {
		return sim.Workload{}, err
	}
	if f.Instances != nil {
		err = b.alibabaInstances(f, memory)
	} else {
		err = b.alibabaTasks(f.Tasks, memory)
	}
	if err != nil {
		return sim.Workload{}, err
	}
	return b.workload(), nil
}

// alibabaContainers takes each container when it is first told of.
func (b *builder) alibabaContainers(src Source, memory func(float64) int64) error {
	seen := map[string]bool{}
	return read("container_meta", src, alibabaContainer, true, func(r *rows) error {
		name := r.str("container_id")
		if name == "" || seen[name] {
			return nil
		}
		seen[name] = true
		cpu, _ := r.num("cpu_request")
		mem, _ := r.num("mem_size")
		s := shape{milliCPU: milli(cpu / 100), memory: memory(mem), priority: servicePriority}
		if app := label(r.str("app_du")); app != "" {
			s.label = "app=" + app
		}
		b.add(record{at: seconds(float64(r.int("time_stamp"))), space: "service", name: name, template: b.template(s)})
		return nil
	})
}

// ran is when a task or an instance began, and how long it ran: 0 to the end. ok is false if that wasn't in the trace's time.
func ran(r *rows) (start, run time.Duration, ok bool) {
	from, to := r.int("start_time"), r.int("end_time")
	status := r.str("status")
	if from <= 0 && to <= 0 || status == "Waiting" || status == "Ready" {
		return 0, 0, false
	}
	if to > 0 {
		run = max(seconds(float64(to-from)), time.Second)
	}
	return seconds(float64(from)), run, true
}

// planned is what a task's instances ask for.
func planned(r *rows, memory func(float64) int64) shape {
	cpu, _ := r.num("plan_cpu")
	mem, _ := r.num("plan_mem")
	return shape{milliCPU: milli(cpu / 100), memory: memory(mem), priority: batchPriority}
}

func (b *builder) alibabaTasks(src Source, memory func(float64) int64) error {
	seen := map[string]int{}
	return read("batch_task", src, alibabaTask, true, func(r *rows) error {
		start, run, ok := ran(r)
		if !ok {
			return nil
		}
		instances := r.int("instance_num")
		if instances > maxInstances {
			return fmt.Errorf("task of %d instances: want at most %d", instances, maxInstances)
		}
		name := r.str("job_name") + "-" + r.str("task_name")
		if seen[name]++; seen[name] > 1 {
			name = fmt.Sprint(name, ".", seen[name])
		}
		b.add(record{
			at: start, run: run, fails: r.str("status") == "Failed", space: "batch", name: name, count: int32(max(instances, 1)),
			template: b.template(planned(r, memory)),
		})
		return nil
	})
}

// alibabaInstances takes each attempt at an instance as a pod.
func (b *builder) alibabaInstances(f Alibaba2018Files, memory func(float64) int64) error {
	type task struct{ job, name string }
	plans := map[task]*corev1.Pod{}
	err := read("batch_task", f.Tasks, alibabaTask, true, func(r *rows) error {
		if start, run, ok := ran(r); ok && b.window.has(start, run) {
			plans[task{strings.Clone(r.str("job_name")), strings.Clone(r.str("task_name"))}] = b.template(planned(r, memory))
		}
		return nil
	})
	if err != nil {
		return err
	}
	seen := map[string]int{}
	return read("batch_instance", f.Instances, alibabaInstance, true, func(r *rows) error {
		start, run, ok := ran(r)
		if !ok || !b.window.has(start, run) {
			return nil
		}
		template := plans[task{r.str("job_name"), r.str("task_name")}]
		if template == nil {
			cpu, _ := r.num("cpu_max")
			mem, _ := r.num("mem_max")
			template = b.template(shape{milliCPU: milli(cpu / 100), memory: memory(mem), priority: batchPriority})
		}
		name := r.str("job_name") + "-" + r.str("task_name") + "-" + r.str("instance_name")
		if seen[name]++; seen[name] > 1 { // tried again
			name = fmt.Sprint(name, ".", seen[name])
		}
		b.add(record{at: start, run: run, fails: r.str("status") == "Failed", space: "batch", name: name, template: template})
		return nil
	})
}

// maxInstances of one task: more is a broken file.
const maxInstances = 1_000_000

// label makes a valid value of a label.
func label(v string) string {
	v = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' {
			return r
		}
		return '-'
	}, v)
	return strings.Trim(v[:min(len(v), 63)], "-_.")
}

// GPUMilli is the resource that pods take of nodes' GPUs, in thousandths of one: to ask for half a GPU is to ask for 500. The default profile looks at the sum
// alone; package gpushare's plugin sees to it that parts are of one device, and whole ones are free.
const GPUMilli = gpushare.Resource

// GPUModelLabel is the label of nodes that has their GPUs' model.
const GPUModelLabel = "alibabacloud.com/gpu-card-model"

// AlibabaGPU2023Files are tables of Alibaba's GPU trace of 2023.
type AlibabaGPU2023Files struct {
	// Nodes is openb_node_list, Pods is one of openb_pod_list. Required.
	Nodes, Pods Source
	Window      Window
}

var (
	gpuNode = []string{"sn", "cpu_milli", "memory_mib", "gpu", "model"}
	gpuPod  = []string{"name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec", "qos", "pod_phase", "creation_time", "deletion_time"}
)

// ReadAlibabaGPU2023 reads the trace. Pods of quality LS come before Burstable ones, and those before the others, by priority.
func ReadAlibabaGPU2023(f AlibabaGPU2023Files) (sim.Workload, error) {
	if f.Nodes == nil || f.Pods == nil {
		return sim.Workload{}, fmt.Errorf("trace: AlibabaGPU2023Files: want Nodes and Pods")
	}
	b, err := newBuilder("alibaba-gpu-2023", f.Window)
	if err != nil {
		return sim.Workload{}, err
	}
	err = read("openb_node_list", f.Nodes, gpuNode, false, func(r *rows) error {
		if r.str("sn") == "" {
			return nil
		}
		gpus := min(max(r.int("gpu"), 0), 1<<20)
		labels := map[string]string{GPUModelLabel: label(r.str("model"))}
		b.records = append(b.records, record{kind: sim.AddNode, node: node(r.str("sn"), max(r.int("cpu_milli"), 0), memoryMiB(r), labels, GPUMilli, gpus*1000)})
		return nil
	})
	if err != nil {
		return sim.Workload{}, err
	}
	err = read("openb_pod_list", f.Pods, gpuPod, false, func(r *rows) error {
		s := shape{milliCPU: max(r.int("cpu_milli"), 0), memory: memoryMiB(r)}
		switch r.str("qos") {
		case "LS":
			s.priority = servicePriority
		case "Burstable":
			s.priority = servicePriority / 2
		}
		if n := min(max(r.int("num_gpu"), 0), 1<<20); n > 0 {
			s.extra, s.extraCount = GPUMilli, n*min(max(r.int("gpu_milli"), 1), 1000)
			if spec := r.str("gpu_spec"); spec != "" {
				models := strings.Split(spec, "|")
				for i := range models {
					models[i] = label(models[i])
				}
				slices.Sort(models)
				s.oneOf = GPUModelLabel + "=" + strings.Join(models, "|")
			}
		}
		if r.str("pod_phase") == "Pending" || r.str("name") == "" {
			return nil // nobody knows how long it would have run
		}
		created, deleted := seconds(float64(r.int("creation_time"))), seconds(float64(r.int("deletion_time")))
		run := time.Duration(0)
		if deleted > 0 {
			run = max(deleted-created, time.Second)
		}
		b.add(record{at: created, run: run, fails: r.str("pod_phase") == "Failed", space: "gpu", name: r.str("name"), template: b.template(s)})
		return nil
	})
	if err != nil {
		return sim.Workload{}, err
	}
	return b.workload(), nil
}

func memoryMiB(r *rows) int64 { return min(max(r.int("memory_mib"), 0), 1<<40) * mib }
