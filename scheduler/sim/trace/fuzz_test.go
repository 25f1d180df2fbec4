package trace_test

import (
	"testing"

	"github.com/keelson/keelson/scheduler/sim"
	"github.com/keelson/keelson/scheduler/sim/trace"
)

// FuzzReaders: whatever is in a file, readers return a workload in order of time, or an error.
func FuzzReaders(f *testing.F) {
	for _, seed := range []string{
		borgMachines, borgInstances, "m_1,0,1,a,96,100,USING\n", "c_1,m_1,0,app,started,400,800,1.5\n", "M1,2,j,1,Terminated,100,160,50,0.39\n",
		"sn,cpu_milli,memory_mib,gpu,model\nn,32000,262144,8,G\n", "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time\np,1,2,1,50,A|B,LS,Running,1,2\n",
		"a,s,d,0,100,1,1,1,Interactive,>24,>64\n", "vmId,vmTypeId,priority,starttime,endtime\n7,2,0,-3.5,0.25\n", "vmTypeId,machineId,core,memory\n2,16,0.25,0.125\n",
		"name,event,time,count,run,cpu,taints\nn,node-add,0,2,,4,k:NoSchedule\np,,1,3,5,1,\n", "\x1f\x8b", "{}", "{\"a\":{\"b\":[1]}}\n", "\"", "name\n\"x",
	} {
		for which := range byte(6) {
			f.Add(which, []byte(seed), []byte(seed))
		}
	}
	types := []byte("vmTypeId,machineId,core,memory\n2,16,0.25,0.125\n")
	f.Fuzz(func(t *testing.T, which byte, first, second []byte) {
		var w sim.Workload
		var err error
		window := trace.Window{Limit: 100}
		switch which % 6 {
		case 0:
			w, err = trace.ReadBorg(trace.BorgFiles{Machines: trace.Bytes(first), Instances: trace.Bytes(second), Collections: trace.Bytes(second), Window: window})
		case 1:
			w, err = trace.ReadAlibaba2018(trace.Alibaba2018Files{Machines: trace.Bytes(first), Containers: trace.Bytes(second), Tasks: trace.Bytes(second), Window: window})
		case 2:
			w, err = trace.ReadAlibabaGPU2023(trace.AlibabaGPU2023Files{Nodes: trace.Bytes(first), Pods: trace.Bytes(second), Window: window})
		case 3:
			w, err = trace.ReadAzureVM(trace.AzureVMFiles{Nodes: 1, VMs: trace.Bytes(first), Window: window})
		case 4:
			w, err = trace.ReadAzurePacking(trace.AzurePackingFiles{Nodes: 1, VMs: trace.Bytes(first), Types: trace.Bytes(types), Window: window})
			if err == nil {
				_, err = trace.ReadAzurePacking(trace.AzurePackingFiles{Nodes: 1, VMs: trace.Bytes(first), Types: trace.Bytes(second), Window: window})
			}
		case 5:
			w, err = trace.ReadCSV(trace.CSVFile{Source: trace.Bytes(first), Window: window})
		}
		if err != nil {
			return
		}
		last, pods := int64(0), 0
		for e, err := range w.Events() {
			if err != nil || int64(e.At) < last {
				t.Fatalf("%v after %v: %v", e.At, last, err)
			}
			last = int64(e.At)
			for _, p := range e.Pods {
				if p.Template == nil || p.Run < 0 {
					t.Fatalf("%+v", p)
				}
			}
			if pods += len(e.Pods); e.Kind == sim.AddNode && e.Node == nil {
				t.Fatalf("%+v", e)
			}
		}
		if pods > 100 {
			t.Fatalf("%d pods, more than the limit", pods)
		}
	})
}
