package trace_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/scheduler"
	"github.com/keelson/keelson/scheduler/plugins"
	"github.com/keelson/keelson/scheduler/sim"
	"github.com/keelson/keelson/scheduler/sim/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// text is what a workload says, one line an event.
func text(t testing.TB, w sim.Workload) string {
	t.Helper()
	var b strings.Builder
	for e, err := range w.Events() {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%v %v ", e.At, e.Kind)
		switch e.Kind {
		case sim.AddNode:
			fmt.Fprintln(&b, strings.TrimSpace(fmt.Sprint(" ", e.Node.Name, " ", list(e.Node.Status.Allocatable), " ", labels(e.Node.Labels))))
			continue
		case sim.Submit:
		default:
			fmt.Fprintf(&b, "%s\n", e.Name)
			continue
		}
		for _, p := range e.Pods {
			fmt.Fprintf(&b, "%s/%s ", p.Namespace, p.Name)
		}
		p := &e.Pods[0]
		fmt.Fprintf(&b, "%s run=%v", list(p.Template.Spec.Containers[0].Resources.Requests), p.Run)
		if p.Template.Spec.Priority != nil {
			fmt.Fprintf(&b, " priority=%d", *p.Template.Spec.Priority)
		}
		if p.Fails {
			fmt.Fprintf(&b, " fails retries=%d", p.Retries)
		}
		if e.Min > 0 {
			fmt.Fprintf(&b, " min=%d", e.Min)
		}
		if s := labels(p.Template.Labels); s != "" {
			b.WriteString(" " + s)
		}
		if a := p.Template.Spec.Affinity; a != nil && a.NodeAffinity != nil {
			r := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchExpressions[0]
			fmt.Fprintf(&b, " on %s in %v", r.Key, r.Values)
		}
		if a := p.Template.Spec.Affinity; a != nil && a.PodAntiAffinity != nil {
			b.WriteString(" apart")
		}
		for _, tol := range p.Template.Spec.Tolerations {
			fmt.Fprintf(&b, " tolerates %s%s %s", tol.Key, tol.Value, tol.Effect)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func list(l corev1.ResourceList) string {
	var out []string
	for name, q := range l {
		if name != corev1.ResourcePods {
			out = append(out, fmt.Sprintf("%s=%s", name, q.String()))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func labels(m map[string]string) string {
	var out []string
	for k, v := range m {
		if k != corev1.LabelHostname {
			out = append(out, k+"="+v)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// plays runs a workload with all checks.
func plays(t testing.TB, w sim.Workload) *sim.Result {
	t.Helper()
	s, err := sim.New(w, sim.Options{Engine: scheduler.EngineOptions{Profile: plugins.Default()}, Check: true})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func src(s string) trace.Source { return trace.Bytes([]byte(s)) }

func compare(t *testing.T, w sim.Workload, err error, want string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimSpace(want), strings.TrimSpace(text(t, w))); diff != "" {
		t.Error(diff)
	}
	plays(t, w)
}

const (
	borgMachines = `time,machine_id,type,switch_id,capacity.cpus,capacity.memory,platform_id,missing_data_reason
0,11,1,sw1,0.5,0.25,p1,
0,12,ADD,sw2,1,1,p2,
0,13,1,sw2,,,p2,
3600000000,11,2,sw1,0.5,0.25,p1,
3660000000,11,1,sw1,,,p1,
`
	borgInstances = `{"time":"0","type":"0","collection_id":"1","priority":"200","instance_index":"0","resource_request":{"cpus":0.0312345,"memory":0.0112}}
{"time":"600000000","type":"SUBMIT","collection_id":"2","priority":"112","instance_index":"0","resource_request":{"cpus":0.5,"memory":0.5},"alloc_collection_id":"0","constraint":[]}
{"time":"600000000","type":"0","collection_id":"2","priority":"112","instance_index":"1","resource_request":{"cpus":0.5,"memory":0.5}}
{"time":"600000000","type":"0","collection_id":"9","instance_index":"0","alloc_collection_id":"77","resource_request":{"cpus":1,"memory":1}}
{"time":"601000000","type":"3","collection_id":"2","priority":"112","instance_index":"0","resource_request":null}
{"time":"602000000","type":"4","collection_id":"2","instance_index":"0"}
{"time":"602000000","type":"0","collection_id":"2","instance_index":"0"}
{"time":"610000000","type":"3","collection_id":"2","instance_index":"0"}
{"time":"640000000","type":"6","collection_id":"2","instance_index":"0"}
{"time":"700000000","type":"7","collection_id":"2","instance_index":"1"}
{"time":"800000000","type":"0","collection_id":"3","priority":"0","instance_index":"0","resource_request":{"cpus":0.001,"memory":0.001}}
{"time":"800000000","type":"3","collection_id":"3","instance_index":"0"}
{"time":"810000000","type":"5","collection_id":"3","instance_index":"0"}
{"time":"9223372036854775807","type":"6","collection_id":"1","instance_index":"0"}
`
)

func TestBorg(t *testing.T) {
	w, err := trace.ReadBorg(trace.BorgFiles{Machines: src(borgMachines), Instances: src(borgInstances), Collections: src("collection_id,max_per_machine\n2,1\n3,0\n")})
	compare(t, w, err, `
0s node-add m11 cpu=32 memory=64Gi platform=p1 switch=sw1
0s node-add m12 cpu=64 memory=256Gi platform=p2 switch=sw2
0s submit borg/1-0 cpu=2 memory=2944Mi run=0s priority=200
10m0s submit borg/2-0 cpu=32 memory=128Gi run=30s priority=112 collection=2 apart
10m0s submit borg/2-1 cpu=32 memory=128Gi run=0s priority=112 collection=2 apart
11m40s cancel borg/2-1
13m20s submit borg/3-0 cpu=64m memory=264Mi run=10s fails retries=0
1h0m0s node-fail m11
1h1m0s node-recover m11
`)
	w, err = trace.ReadBorg(trace.BorgFiles{Machines: src(borgMachines), Instances: src(borgInstances), Window: trace.Window{From: 625 * time.Second, Length: 10 * time.Minute, Limit: 2}})
	compare(t, w, err, `
0s node-add m11 cpu=32 memory=64Gi platform=p1 switch=sw1
0s node-add m12 cpu=64 memory=256Gi platform=p2 switch=sw2
0s submit borg/2-0 cpu=32 memory=128Gi run=5s priority=112
0s submit borg/2-1 cpu=32 memory=128Gi run=0s priority=112
1m15s cancel borg/2-1
`)
}

func TestAlibaba2018(t *testing.T) {
	var z bytes.Buffer
	g := gzip.NewWriter(&z)
	_, _ = g.Write([]byte("M1,2,j_1,1,Terminated,100,160,50,0.39\nM1,1,j_2,1,Failed,90,91,100,0.5\nR2_1,3,j_1,1,Waiting,0,0,50,0.39\nM9,1,j_3,1,Running,200,0,,\n"))
	g.Close()
	w, err := trace.ReadAlibaba2018(trace.Alibaba2018Files{
		Machines:   src("m_1,0,1,a_b,96,100,USING\nm_2,0,2,a_c,96,50,USING\nm_1,10,1,a_b,96,100,USING\nm_2,300,2,a_c,96,50,IMPORT\n"),
		Containers: src("c_1,m_1,0,app_5,started,400,800,1.56\nc_1,m_1,90,app_5,started,400,800,1.56\nc_2,m_1,0,app_5,started,800,800,3.13\n"),
		Tasks:      trace.Bytes(z.Bytes()),
	})
	compare(t, w, err, `
0s node-add m_1 cpu=96 memory=256Gi failure-domain-2=a_b topology.kubernetes.io/zone=1
0s node-add m_2 cpu=96 memory=128Gi failure-domain-2=a_c topology.kubernetes.io/zone=2
0s submit service/c_1 cpu=4 memory=4Gi run=0s priority=1000 app=app_5
0s submit service/c_2 cpu=8 memory=8448Mi run=0s priority=1000 app=app_5
1m30s submit batch/j_2-M1-0 cpu=1 memory=1312Mi run=1s fails retries=0
1m40s submit batch/j_1-M1-0 batch/j_1-M1-1 cpu=500m memory=1Gi run=1m0s
3m20s submit batch/j_3-M9-0 cpu=0 memory=0 run=0s
5m0s node-fail m_2
`)
}

// TestAlibaba2018Instances: each row of batch_instance is a pod with times of its own, that takes what its task planned.
func TestAlibaba2018Instances(t *testing.T) {
	files := trace.Alibaba2018Files{
		Machines: src("m_1,0,1,a_b,96,100,USING\nm_2,0,1,a_b,96,101,USING\n"),
		Tasks:    src("M1,3,j_1,1,Terminated,100,160,50,0.39\nR2_1,1,j_1,1,Terminated,160,170,100,101\n"),
		Instances: src(`ins_1,M1,j_1,1,Terminated,100,130,m_1,1,1,48,111,0.31,0.33
ins_2,M1,j_1,1,Failed,101,105,m_1,1,2,48,111,0.31,0.33
ins_2,M1,j_1,1,Terminated,107,160,m_1,2,2,48,111,0.31,0.33
ins_3,M1,j_1,1,Waiting,0,0,,1,1,,,,
ins_4,R2_1,j_1,1,Running,160,0,m_1,1,1,8,9,0.02,0.02
ins_5,task_Nzg3ODAwNDgzMTAwNTc2NTQ2Mw==,j_2,12,Interrupted,90,150,m_1,1,1,20,180,0.1,0.78
`),
	}
	w, err := trace.ReadAlibaba2018(files)
	compare(t, w, err, `
0s node-add m_1 cpu=96 memory=256Gi failure-domain-2=a_b topology.kubernetes.io/zone=1
1m30s submit batch/j_2-task_Nzg3ODAwNDgzMTAwNTc2NTQ2Mw==-ins_5 cpu=1800m memory=2Gi run=1m0s
1m40s submit batch/j_1-M1-ins_1 cpu=500m memory=1Gi run=30s
1m41s submit batch/j_1-M1-ins_2 cpu=500m memory=1Gi run=4s fails retries=0
1m47s submit batch/j_1-M1-ins_2.2 cpu=500m memory=1Gi run=53s
2m40s submit batch/j_1-R2_1-ins_4 cpu=1 memory=0 run=0s
`)
	files.Window = trace.Window{From: 140 * time.Second, Length: 10 * time.Second}
	w, err = trace.ReadAlibaba2018(files)
	compare(t, w, err, `
0s node-add m_1 cpu=96 memory=256Gi failure-domain-2=a_b topology.kubernetes.io/zone=1
0s submit batch/j_1-M1-ins_2 cpu=500m memory=1Gi run=20s
0s submit batch/j_2-task_Nzg3ODAwNDgzMTAwNTc2NTQ2Mw==-ins_5 cpu=1800m memory=2Gi run=10s
`)
}

func TestAlibabaGPU2023(t *testing.T) {
	w, err := trace.ReadAlibabaGPU2023(trace.AlibabaGPU2023Files{
		Nodes: src("sn,cpu_milli,memory_mib,gpu,model\nopenb-node-0227,32000,262144,0,nan\nopenb-node-0229,96000,786432,8,V100M32\n"),
		Pods: src(`name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time
openb-pod-0017,88000,327680,8,1000,,Burstable,Succeeded,9437497,10769854,9437497
openb-pod-0022,4000,15258,1,220,nan,BE,Failed,9437500,9437600,9437500
openb-pod-0035,16000,32768,1,1000,V100M32|V100M16,LS,Running,9967058,9968575,9967063
openb-pod-0036,16000,32768,0,0,,LS,Pending,9967058,9968575,
`), Window: trace.Window{From: 9437497 * time.Second},
	})
	compare(t, w, err, `
0s node-add openb-node-0227 cpu=32 memory=256Gi
0s node-add openb-node-0229 alibabacloud.com/gpu-milli=8k cpu=96 memory=768Gi alibabacloud.com/gpu-card-model=V100M32
0s submit gpu/openb-pod-0017 alibabacloud.com/gpu-milli=8k cpu=88 memory=320Gi run=370h5m57s priority=500
3s submit gpu/openb-pod-0022 alibabacloud.com/gpu-milli=220 cpu=4 memory=15258Mi run=1m40s fails retries=0
147h6m1s submit gpu/openb-pod-0035 alibabacloud.com/gpu-milli=1k cpu=16 memory=32Gi run=25m17s priority=1000 on alibabacloud.com/gpu-card-model in [V100M16 V100M32]
`)
}

func TestAzure(t *testing.T) {
	w, err := trace.ReadAzureVM(trace.AzureVMFiles{
		Nodes: 2, VMs: src("a/b=,s,d,0,2591400,99.3,3.4,7.1,Delay-insensitive,4,32\nc,s,d,1200,2400,90,1,2,Interactive,>24,>64\ne,s,d,1500,,90,1,2,Unknown,2,1.75\n"),
	})
	compare(t, w, err, `
0s node-add node-00000 cpu=64 memory=256Gi topology.kubernetes.io/zone=zone-0
0s node-add node-00001 cpu=64 memory=256Gi topology.kubernetes.io/zone=zone-1
0s submit azure/vm-1 cpu=4 memory=32Gi run=719h50m0s category=Delay-insensitive
20m0s submit azure/vm-2 cpu=30 memory=70Gi run=20m0s priority=1000 category=Interactive
25m0s submit azure/vm-3 cpu=2 memory=1792Mi run=0s category=Unknown
`)
	w, err = trace.ReadAzurePacking(trace.AzurePackingFiles{
		Nodes: 1, VMs: src("vmId,tenantId,vmTypeId,priority,starttime,endtime\n7,1,2,0,-3.5,0.25\n8,1,2,1,0.5,1\n9,1,3,1,0.5,NULL\n10,1,5,1,0.5,0.6\n11,1,2,0,-2,-1\n"),
		Types: src("id,vmTypeId,machineId,core,memory,hdd,ssd,nic\n1,2,16,0.25,0.125,,0.1,0.1\n2,3,16,0.5,1,,0.1,0.1\n3,5,17,0.5,1,,0.1,0.1\n"),
	})
	compare(t, w, err, `
0s node-add node-00000 cpu=64 memory=256Gi topology.kubernetes.io/zone=zone-0
0s submit azure/vm-7 cpu=16 memory=32Gi run=6h0m0s priority=1000
12h0m0s submit azure/vm-8 cpu=16 memory=32Gi run=12h0m0s
12h0m0s submit azure/vm-9 cpu=32 memory=256Gi run=0s
`)
}

// TestAzureVersions: V1 tells cores and memory as they are, V2 by buckets; both without a header, with identifiers in base64, and times that are multiples of five minutes.
func TestAzureVersions(t *testing.T) {
	const id = "71fJw0x+SQRdAxKPwLHZnmLCzVXqtBpUFTmqRUmlFCSWaC5Z9d1SwCwjp1LRMKJb"
	w, err := trace.ReadAzureVM(trace.AzureVMFiles{Nodes: 1, VMs: src(
		id + ",BSXOcywx8pUU0DueDo6UMol1YzR6tn47KLEKaoXp0a1bf2PpzJ7n7lLlmhQ0OJf9,3KJ+wJ,0,2591700,98.729,2.8,55.1,Unknown,16,112\n" +
			id + ",s,d,424500,425400,37.879,3.325,37.879,Delay-insensitive,1,0.75\n" +
			id + ",s,d,1133100,1133700,0.304,0.221,0.304,Interactive,24,64\n" +
			id + ",s,d,1133100,1133100,0.304,0.221,0.304,Delay-insensitive,2,2\n")})
	compare(t, w, err, `
0s node-add node-00000 cpu=64 memory=256Gi topology.kubernetes.io/zone=zone-0
0s submit azure/vm-1 cpu=16 memory=112Gi run=719h55m0s category=Unknown
117h55m0s submit azure/vm-2 cpu=1 memory=768Mi run=15m0s category=Delay-insensitive
314h45m0s submit azure/vm-3 cpu=24 memory=64Gi run=10m0s priority=1000 category=Interactive
314h45m0s submit azure/vm-4 cpu=2 memory=2Gi run=5m0s category=Delay-insensitive
`)
}

func TestCSV(t *testing.T) {
	special := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}}
	w, err := trace.ReadCSV(trace.CSVFile{Templates: map[string]*corev1.Pod{"special": special}, Source: src(`time,event,name,namespace,count,min,run,fails,retries,priority,template,labels,selector,taints,tolerates,cpu,memory,hugepages-2Mi,example.com/gpu
0,node-add,n,,2,,,,,,,zone=a disk=ssd,,k=v:NoSchedule,,4,8Gi,1Gi,2
10.5,,p,,,,1m,,,7,,app=web,disk=ssd,,k=v:NoSchedule,500m,1Gi,,
11,submit,g,team,3,2,30,yes,2,,special,c=d,,,*,1,,,1
1m,node-drain,n-0,,,,,,,,,,,,,,,,
2m,node-recover,n-0
3m,cancel,p
`)})
	compare(t, w, err, `
0s node-add n-0 cpu=4 example.com/gpu=2 hugepages-2Mi=1Gi memory=8Gi disk=ssd zone=a
0s node-add n-1 cpu=4 example.com/gpu=2 hugepages-2Mi=1Gi memory=8Gi disk=ssd zone=a
10.5s submit default/p cpu=500m memory=1Gi run=1m0s priority=7 app=web tolerates kv NoSchedule
11s submit team/g-0 team/g-1 team/g-2 cpu=1 example.com/gpu=1 run=30s fails retries=2 min=2 a=b c=d tolerates  
1m0s node-drain n-0
2m0s node-recover n-0
3m0s cancel default/p
`)
}

// TestMalformed: what is wrong in a file of a trace is told with the file's name and the line.
func TestMalformed(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) trace.Source {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return trace.File(path)
	}
	nodes := src("sn,cpu_milli,memory_mib,gpu,model\nn,1000,1000,0,nan\n")
	machines := src("m1,0,1,1,96,100,USING\n")
	read := func(_ sim.Workload, err error) error { return err }
	for want, err := range map[string]error{
		"pods.csv:3: column num_gpu: \"two\": want a number": read(trace.ReadAlibabaGPU2023(trace.AlibabaGPU2023Files{Nodes: nodes, Pods: file("pods.csv",
			"name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\np,1,1,1,500,,LS,Running,1,2,1\nq,1,1,two,500,,LS,Running,1,2,1\n")})),
		"tasks.csv:2: 3 fields: want 9":                                         read(trace.ReadAlibaba2018(trace.Alibaba2018Files{Machines: machines, Tasks: file("tasks.csv", "t,1,j,1,Terminated,1,2,100,0.5\nt2,1,j\n")})),
		"tasks2.csv:1: 1 fields: want 9":                                        read(trace.ReadAlibaba2018(trace.Alibaba2018Files{Machines: machines, Tasks: file("tasks2.csv", "t\n")})),
		"events.json:2: machine event of":                                       read(trace.ReadBorg(trace.BorgFiles{Instances: src(borgInstances), Machines: file("events.json", `{"time":"0","machine_id":"1","type":"1"}`+"\n"+`{"time":"0","machine_id":"1","type":"9"}`+"\n")})),
		"broken.json:2: unexpected EOF":                                         read(trace.ReadBorg(trace.BorgFiles{Instances: src(borgInstances), Machines: file("broken.json", `{"time":"0","machine_id":"1","type":"1"}`+"\n"+`{"time":"0"`)})),
		"vmtable.csv:1: column vmcorecountbucket: \">7\": want a number or >24": read(trace.ReadAzureVM(trace.AzureVMFiles{Nodes: 1, VMs: file("vmtable.csv", "v,s,d,0,100,1,1,1,Unknown,>7,4\n")})),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct{ csv, want string }{
		{"time,cpu\n", `no column "name"`},
		{"name,time\np,soon\n", "csv:2: time"},
		{"name,event\np,explode\n", `"explode" is unknown`},
		{"name,cpu\np,much\n", `cpu: "much"`},
		{"name,count,min\np,2,3\n", "min 3 of 2"},
		{"name,template\np,none\n", `template "none"`},
		{"name,labels\np,x\n", `labels: "x"`},
		{"name,run\np,-1\n", "run:"},
		{"name,priority\na,1\nb,x\n", "csv:3: priority"},
		{"name,fails\np,maybe\n", "fails:"},
		{"name,event,taints\nn,node-add,x\n", "taints:"},
		{"name,count\np,100000000\n", "count 100000000"},
	} {
		if _, err := trace.ReadCSV(trace.CSVFile{Source: src(c.csv)}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %s", c.csv, err, c.want)
		}
	}
	if _, err := trace.ReadBorg(trace.BorgFiles{Machines: src(borgMachines), Instances: src(`{"time":"2","type":"0","collection_id":"1"}` + "\n" + `{"time":"1","type":"3","collection_id":"1"}`)}); err == nil || !strings.Contains(err.Error(), "ORDER BY") {
		t.Error(err)
	}
	if _, err := trace.ReadCSV(trace.CSVFile{Source: trace.File("/does/not/exist")}); err == nil {
		t.Error("read a file that isn't there")
	}
	if _, err := trace.Borg(trace.Options{Nodes: -1}); err == nil {
		t.Error("took -1 nodes")
	}
}
