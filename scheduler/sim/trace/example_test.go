package trace_test

import (
	"fmt"
	"log"

	"github.com/keelson/keelson/scheduler/sim/trace"
)

// A workload of three rows.
func ExampleReadCSV() {
	w, err := trace.ReadCSV(trace.CSVFile{Source: trace.Bytes([]byte(`time,event,name,count,cpu,memory,run
0,node-add,node,2,4,16Gi,
10,,web,3,500m,1Gi,1h
2m,node-drain,node-0,,,,
`))})
	if err != nil {
		log.Fatal(err)
	}
	for e, err := range w.Events() {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.At, e.Kind, len(e.Pods))
	}
	// Output:
	// 0s node-add 0
	// 0s node-add 0
	// 10s submit 3
	// 2m0s node-drain 0
}
