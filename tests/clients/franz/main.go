// franz-go: 100,000 records with each codec, read back and compared. BROKER=host:port
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const partitions = 3

func main() {
	log.SetFlags(0)
	log.SetPrefix("franz-go: ")
	count := 100_000
	if text := os.Getenv("RECORDS"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil {
			log.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for name, codec := range map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	} {
		if err := check(ctx, "franz-"+name, codec, count); err != nil {
			log.Fatalf("%s: %v", name, err)
		}
		log.Printf("%d records with %s: equal", count, name)
	}
}

func check(ctx context.Context, topic string, codec kgo.CompressionCodec, count int) error {
	broker := kgo.SeedBrokers(os.Getenv("BROKER"))
	producer, err := kgo.NewClient(broker, kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(codec),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer producer.Close()
	if err := createTopic(ctx, producer, topic); err != nil {
		return err
	}

	// Idempotent, acks=all, many in flight: the client's defaults.
	var failures atomic.Int64
	for n := range count {
		producer.Produce(ctx, record(n), func(record *kgo.Record, err error) {
			if err != nil || record.Offset != int64(n/partitions) {
				failures.Add(1)
				log.Printf("record %d: offset %d, %v", n, record.Offset, err)
			}
		})
	}
	if err := producer.Flush(ctx); err != nil {
		return err
	}
	if failures.Load() > 0 {
		return fmt.Errorf("%d records were not produced at their offsets", failures.Load())
	}

	assigned := map[int32]kgo.Offset{}
	for partition := range int32(partitions) {
		assigned[partition] = kgo.NewOffset().AtStart()
	}
	consumer, err := kgo.NewClient(broker, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: assigned}))
	if err != nil {
		return err
	}
	defer consumer.Close()
	var next [partitions]int64
	for read := 0; read < count; {
		fetches := consumer.PollFetches(ctx)
		for _, failure := range fetches.Errors() {
			return fmt.Errorf("%s-%d: %w", failure.Topic, failure.Partition, failure.Err)
		}
		for iter := fetches.RecordIter(); !iter.Done(); read++ {
			got := iter.Next()
			want := record(int(next[got.Partition])*partitions + int(got.Partition))
			if got.Offset != next[got.Partition] || string(got.Key) != string(want.Key) ||
				string(got.Value) != string(want.Value) || len(got.Headers) != 1 ||
				string(got.Headers[0].Value) != string(want.Headers[0].Value) {
				return fmt.Errorf("at %d-%d: %s=%s", got.Partition, got.Offset, got.Key, got.Value)
			}
			next[got.Partition]++
		}
	}
	return nil
}

func record(n int) *kgo.Record {
	text := strconv.Itoa(n)
	return &kgo.Record{
		Partition: int32(n % partitions),
		Key:       []byte("key-" + text),
		Value:     []byte("value " + text + ": the quick brown fox jumps over the lazy dog"),
		Headers:   []kgo.RecordHeader{{Key: "n", Value: []byte(text)}},
	}
}

func createTopic(ctx context.Context, client *kgo.Client, name string) error {
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitions, 1
	request := kmsg.NewPtrCreateTopicsRequest()
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(response.Topics[0].ErrorCode)
}
