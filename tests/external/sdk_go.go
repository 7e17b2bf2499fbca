// Callbacks of AWS' SDK for Go v2: a request a line in JSON on stdin, its outcome a line on stdout.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	api "github.com/aws/aws-sdk-go-v2/service/apigatewaymanagementapi"
	"github.com/aws/smithy-go"
)

type request struct {
	Endpoint, Key, Secret, Token, Verb, ID string
	Data                                   []byte
}

type outcome struct {
	Outcome string  `json:"outcome"`
	Why     string  `json:"why,omitempty"`
	IP      string  `json:"ip,omitempty"`
	Agent   string  `json:"agent,omitempty"`
	Since   float64 `json:"since,omitempty"`
	Active  float64 `json:"active,omitempty"`
}

func seconds(t *time.Time) float64 {
	return float64(aws.ToTime(t).UnixMilli()) / 1000
}

func call(asked request) (outcome, error) {
	said := outcome{Outcome: "ok"}
	key := aws.Credentials{AccessKeyID: asked.Key, SecretAccessKey: asked.Secret, SessionToken: asked.Token}
	client := api.New(api.Options{
		Region:           "eu-central-1",
		EndpointResolver: api.EndpointResolverFromURL(asked.Endpoint),
		Retryer:          aws.NopRetryer{},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return key, nil
		}),
	})
	ctx, id := context.Background(), aws.String(asked.ID)
	switch asked.Verb {
	case "post":
		_, err := client.PostToConnection(ctx, &api.PostToConnectionInput{ConnectionId: id, Data: asked.Data})
		return said, err
	case "delete":
		_, err := client.DeleteConnection(ctx, &api.DeleteConnectionInput{ConnectionId: id})
		return said, err
	}
	found, err := client.GetConnection(ctx, &api.GetConnectionInput{ConnectionId: id})
	if err == nil && found.Identity != nil {
		said.IP, said.Agent = aws.ToString(found.Identity.SourceIp), aws.ToString(found.Identity.UserAgent)
		said.Since, said.Active = seconds(found.ConnectedAt), seconds(found.LastActiveAt)
	}
	return said, err
}

func main() {
	lines, out := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var asked request
		if err := json.Unmarshal(line, &asked); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		said, err := call(asked)
		if err != nil {
			said = outcome{Outcome: "no answer", Why: err.Error()}
			var named smithy.APIError
			if errors.As(err, &named) {
				said.Outcome = named.ErrorCode()
			}
		}
		out.Encode(said)
	}
}
