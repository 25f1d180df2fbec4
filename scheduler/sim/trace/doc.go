// Package trace makes workloads for package sim: readers for a simple CSV and for the columns of public traces, and generators of workloads of similar shapes.
//
// No trace comes with it. Readers take the files as they are published, gzip-compressed or not:
//
//	ReadCSV            a simple format of our own: see there
//	ReadBorg           Google's Borg clusters of 2019: machine_events, instance_events, collection_events, as CSV with a header or as JSON lines from BigQuery
//	ReadAlibaba2018    machine_meta, container_meta, batch_task, batch_instance
//	ReadAlibabaGPU2023 openb_node_list, openb_pod_list
//	ReadAzureVM        vmtable of the Azure Public Dataset, V1 and V2
//	ReadAzurePacking   the tables vm and vmType of the packing trace of 2020, exported as CSV with a header
//
// What a trace says of placements is not used: to place is the simulated scheduler's part. Its times of submission, its requests, priorities and run times are.
// Columns that have no meaning for placement here are left out: Borg's constraints on machines' attributes and max_per_switch, Alibaba's order of tasks by their names,
// and the disks and network of Azure's trace for packing. Errors name the file and the line.
//
// Traces give requests as parts of a machine, with many digits. Requests of cpu are rounded to two significant ones, of memory to six
// significant bits, so that pods share templates: then engines share their
// answers, which makes simulations fast.
//
// Borg, Alibaba, GPU and Azure generate workloads with heavy-tailed sizes and run times, jobs of many pods, daily tides, tiers of priority and parts of GPUs: the same
// options give the same workload. Churn adds nodes' failures and drains.
package trace
